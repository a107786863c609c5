"""The records on disk: how they are read, their versions, and the list of erased customers.

May import: data.config and the rooms below data.
"""
