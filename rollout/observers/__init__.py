"""The sources of evidence: Envoy and the prediction log on one machine, Prometheus on a cluster."""
