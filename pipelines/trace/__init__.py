"""`churn trace`: follows one prediction back to its model, gates, run, data, features and source rows."""
