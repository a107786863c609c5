"""Computes point-in-time features from validated records, for the offline and the online store."""
