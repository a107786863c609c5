"""Where traffic is split: Envoy on one machine, KServe in Knative or Standard mode."""
