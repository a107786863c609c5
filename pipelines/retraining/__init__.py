"""`churn retrain`: reads the evidence, lets the governor decide, and runs the steps of a granted run."""
