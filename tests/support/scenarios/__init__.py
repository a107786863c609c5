"""Scenarios of rollouts on KServe that its models of tests/support/kube and a real cluster have to pass with
the same states: scenarios.yaml. tests/rollout/test_kube_scenarios.py and tests/cluster/test_scenarios.py run
them."""
