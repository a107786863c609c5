"""Parses the body of a request in each protocol into one type, and writes the answer in the same protocol."""
