"""Writes, signs, lists (SBOM) and verifies the `.mar` file, without loading a model.

May import: training.config, and the rooms below training.
"""
