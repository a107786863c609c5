"""Releases a fit: makes the archive with its model card, and the run and the version in MLflow.

May import: training.gates, training.registry, training.archive, and what these may import.
"""
