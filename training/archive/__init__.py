"""The `.mar` file as bytes: written, signed, listed (SBOM) and verified, without a model loaded.

May import: the rooms below training.
"""
