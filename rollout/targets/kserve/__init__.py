"""KServe as a target, in Knative and in Standard mode: the state of a cluster, and patches of an
InferenceService."""
