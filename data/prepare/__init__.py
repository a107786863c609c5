"""Rows become records: cleaned, put in order, freed of copies, compared with known ones, written in parts.

May import: data.records, data.source, data.cell, and what these may import.
"""
