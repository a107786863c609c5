"""Starts one TorchServe with one archive, waits until it can answer, and stops it."""
