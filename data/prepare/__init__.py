"""Turns rows into records: cleans, sorts, removes copies, compares with stored rows, and writes parts.

May import: data.records, data.source, data.cell, and what these may import.
"""
