"""Scores many customers in one process without a server."""
