"""Reads a bounded part of a file, folder or URI as a table, for `churn init`."""
