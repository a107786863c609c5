"""Writes, signs, lists (SBOM) and verifies the `.mar` file, without loading a model.

May import: the rooms below training.
"""
