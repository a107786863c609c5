"""The scenarios of tests/support/scenarios on the models of KServe. tests/cluster/test_scenarios.py runs the
same ones on a real cluster, so that the models are known to behave as it does."""

import pytest

from support.scenarios.file import Scenario, scenarios
from support.scenarios.model import model
from support.scenarios.run import run


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.id)
def test_each_state_is_the_one_that_the_file_says(scenario: Scenario) -> None:
    with model(scenario) as place:
        run(scenario, place)
