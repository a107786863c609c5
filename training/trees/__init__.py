"""The shapes of boosted trees that a wide path can take, each grown by a library and read by
model/tree_formats.py.

May import: the rooms below training.
"""
