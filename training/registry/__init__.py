"""Registered versions in MLflow: the aliases, the history of decisions, and fetching the archive of a
version.

May import: training.archive, training.config.
"""
