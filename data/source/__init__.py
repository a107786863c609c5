"""Reads sources: files of each kind, database tables and computed columns, as text or typed batches.

May import: data.cell, data.config, and the rooms below data.
"""
