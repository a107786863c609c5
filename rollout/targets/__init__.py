"""Targets split the traffic: Envoy on one machine, KServe on a cluster."""
