"""Evaluates a fit: baselines, cross-validation, importance of features, confidence intervals by
resampling.

May import: training.learn and what it may import.
"""
