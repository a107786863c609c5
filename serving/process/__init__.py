"""Starts processes that end with this one, and closes listening sockets without cutting a connection."""
