"""The records on disk: who reads them, their versions, and who has been erased from them.

May import: data.config and the rooms below data.
"""
