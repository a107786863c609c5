"""Grows boosted trees for the wide path: each shape by one library, whose format model/tree_formats.py
reads.

May import: the rooms below training.
"""
