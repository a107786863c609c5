"""The Optuna study: search space, trials, the queue in its database and the worker processes.

May import: training.train, training.registry (for runs in MLflow), and what these may import.
"""
