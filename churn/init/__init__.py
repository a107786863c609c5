"""`churn init`: examines a file, states what it finds and why, and writes an overlay."""
