"""`churn backup` and `churn restore`: all state of a profile, in a form that no store decides.

So a backup of the local profile can be restored into the production profile.
"""
