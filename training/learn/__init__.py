"""Fits one network and its trees to rows, and chooses the weights of these paths; the only file is the
checkpoint.

May import: training.trees, training.config, and the rooms below training.
"""
