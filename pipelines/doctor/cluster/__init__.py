"""`churn doctor --cluster`: what a cluster needs before, and while, it serves this model."""
