"""Measures data and model in production, and reports what differs. It starts nothing."""
