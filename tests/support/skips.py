"""Which tests may be skipped where everything that tests need is installed: tests/allowed_skips.yaml.

The nightly workflow sets CHURN_SKIPS=listed. A skip that the file does not list fails there, so that a
missing program cannot hide a test.
"""

import os
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest
import yaml

VARIABLE = "CHURN_SKIPS"
LIST = Path(__file__).resolve().parents[1] / "allowed_skips.yaml"


@cache
def allowed_skips() -> tuple[tuple[str, str], ...]:
    """(pattern of node ids, text that the reason contains) of each entry."""
    return tuple((entry["tests"], entry["reason"]) for entry in yaml.safe_load(LIST.read_text()))


def fail_unlisted(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turns a skip into a failure if the variable asks for listed skips and the list has no such entry."""
    if os.environ.get(VARIABLE) != "listed" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    if not any(fnmatch(report.nodeid, tests) and text in reason for tests, text in allowed_skips()):
        report.outcome = "failed"
        report.longrepr = f"{reason}: this skip is not listed in tests/{LIST.name}"
