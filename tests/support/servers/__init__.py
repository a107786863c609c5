"""Servers that tests start on loopback, and clients that send load to them."""
