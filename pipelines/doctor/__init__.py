"""`churn doctor`: checks an installation, and states for each fault the command that mends it."""
