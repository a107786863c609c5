"""One cell as a source wrote it becomes a number, a moment or an identifier, or says why it cannot.

May import: data.config and the rooms below data.
"""
