"""Reads customers' features from the online store by a deadline; replaces missing and stale values."""
