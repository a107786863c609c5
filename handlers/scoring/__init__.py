"""Computes scores with the exported program, and the reasons and changed inputs that explain a score."""
