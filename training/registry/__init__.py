"""Registered versions in MLflow: the alias of the champion, the history of decisions, and how a version is
fetched.

May import: training.archive, training.config.
"""
