"""Reads and writes TorchServe's messages: whole batches from the worker's socket, refusals as gRPC status."""
