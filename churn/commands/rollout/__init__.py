"""`churn rollout ...`: a candidate on live traffic. A database connects commands and controller."""
