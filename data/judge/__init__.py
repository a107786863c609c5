"""Expectations about the records, judged before anything else reads them.

May import: data.prepare and what it may import.
"""
