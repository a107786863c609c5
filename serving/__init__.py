"""Start, watch, ask and stop TorchServe on one machine."""
