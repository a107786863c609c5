"""A fit becomes a release: the archive with its model card, and the run and version in MLflow.

May import: training.gates, training.registry, training.archive, and what these may import.
"""
