"""How one network and its trees are fitted to rows, and how their parts are weighed: no files but the
checkpoint.

May import: training.trees, training.config, and the rooms below training.
"""
