"""Libraries do not report their use to the hosts of their makers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = """
import core
from mlflow.telemetry.utils import is_telemetry_disabled
from evidently.telemetry import event_logger
print(is_telemetry_disabled(), event_logger.is_enabled())
"""


@pytest.mark.parametrize(
    ("given", "answer"), [({}, "True False"), ({"DO_NOT_TRACK": "false"}, "False False")]
)
def test_nothing_is_reported_unless_a_person_wants_it(given: dict[str, str], answer: str) -> None:
    """Evidently reports nothing where the variable exists, whatever its value."""
    # without the variables by which MLflow finds that a test runs
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=REPOSITORY, env=environment | given, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.stdout.strip() == answer, ran.stderr
