"""The scenarios of tests/support/scenarios on a real cluster, with the same expected states as on the models
of KServe (tests/rollout/test_kube_scenarios.py)."""

from pathlib import Path
from uuid import uuid4

import pytest

from support.cluster.addresses import Addresses
from support.cluster.inventory import Inventory
from support.cluster.light import light
from support.scenarios.file import Scenario, scenarios
from support.scenarios.run import run


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.id)
def test_each_state_is_the_one_that_the_file_says(
    scenario: Scenario, cluster: Inventory, stores: Addresses, tmp_path: Path
) -> None:
    cluster.needs_standard() if scenario.mode == "standard" else cluster.needs_knative()
    with light(tmp_path, stores, f"churn-test-{uuid4().hex[:6]}", scenario) as place:
        run(scenario, place)
