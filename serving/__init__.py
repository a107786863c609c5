"""Starts, supervises and stops the servers of one machine: TorchServe and, in front of it, Envoy."""
