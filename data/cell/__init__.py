"""Parses cells as a source wrote them into numbers, times and identifiers, or states why it cannot.

May import: data.config and the rooms below data.
"""
