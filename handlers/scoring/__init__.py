"""Computes scores with the exported program, and explains them by reasons and what-if questions."""
