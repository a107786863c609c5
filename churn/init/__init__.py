"""`churn init`: looks at a file, says what it believes and why, and writes the overlay for `churn run`."""
