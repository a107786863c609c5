"""Starts Envoy in front of the servers and writes its configuration: routes, keys, limits, TLS, split."""
