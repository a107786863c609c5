"""Where evidence comes from: Envoy and the prediction log on one machine, Prometheus on a cluster."""
