"""Checks the expectations about the records before any later stage reads them.

May import: data.prepare and what it may import.
"""
