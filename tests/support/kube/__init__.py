"""An API server and models of the controllers of KServe and Knative: the parts of a cluster that rollouts
use.
"""
