"""Alerting rules: each alert fires, does not fire and resolves; has a severity, a summary and a runbook."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.alert_rules import REPOSITORY, RULES, RUNBOOKS, alerts, rule_files, rules

UNIT_TESTS = Path(__file__).with_name("rules")
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="there is no promtool here: apt-get install prometheus"
)


def promtool(*words: str) -> None:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_accepts_all_rules_together() -> None:
    promtool("check", "rules", *map(str, rule_files()))


@needs_promtool
@pytest.mark.parametrize("file", rule_files(), ids=lambda file: file.stem)
def test_rules_do_what_their_unit_tests_state(file: Path) -> None:
    promtool("test", "rules", str(UNIT_TESTS / file.name))


@pytest.mark.parametrize("file", rule_files(), ids=lambda file: file.stem)
def test_each_alert_is_tested_before_it_fires_while_it_fires_and_after(file: Path) -> None:
    tests = yaml.safe_load((UNIT_TESTS / file.name).read_text(encoding="utf-8"))["tests"]
    for name in {rule["alert"] for rule in rules(file) if "alert" in rule}:
        assert any(_fires_between(name, test.get("alert_rule_test", [])) for test in tests), name


def _fires_between(name: str, cases: list[dict[str, Any]]) -> bool:
    """Whether the alert is not expected at first, is expected, and is not expected at the end."""
    mine = sorted((case for case in cases if case["alertname"] == name), key=lambda case: _minutes(case))
    fires = [bool(case.get("exp_alerts")) for case in mine]
    return any(fires) and not fires[0] and not fires[-1]


def _minutes(case: dict[str, Any]) -> float:
    text = str(case["eval_time"])
    return float(text[:-1]) * {"m": 1, "h": 60}[text[-1]]


def test_each_alert_says_who_acts_what_is_wrong_and_what_to_do() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]
        runbook = REPOSITORY / rule["annotations"]["runbook_url"]
        assert runbook == RUNBOOKS / f"{rule['alert']}.md"
        text = runbook.read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.*)$", text, re.M)
        assert headings == [rule["alert"], "Meaning", "First look", "Remedy"], runbook
        assert f"Severity: {rule['labels']['severity']}." in text


def test_each_runbook_has_an_alert() -> None:
    assert {file.stem for file in RUNBOOKS.glob("*.md")} == {rule["alert"] for rule in alerts()}


def test_drift_is_a_ticket_and_harm_skew_corruption_and_staleness_page() -> None:
    severities = {rule["labels"]["cause"]: rule["labels"]["severity"] for rule in alerts()
                  if "cause" in rule["labels"]}  # fmt: skip
    assert severities == {"drift": "ticket"} | dict.fromkeys(
        ("harm", "skew", "corruption", "staleness"), "page"
    )


def test_a_share_is_judged_on_two_windows_and_above_a_floor_of_traffic() -> None:
    burning = [rule for rule in alerts() if rule["alert"].endswith("BudgetBurn")]
    factors = {"1h": ("14.4", "5m"), "6h": ("6", "30m")}
    assert len(burning) == 8
    for rule in burning:
        long = rule["labels"]["window"]
        factor, short = factors[long]
        budget = "0.001" if "Error" in rule["alert"] else "0.01"
        for window in (long, short):
            assert f"ratio_rate{window} > {factor} * {budget}" in rule["expr"], rule
        assert re.search(rf"_requests:rate{long} > 0\.1$", rule["expr"].strip()), rule


def test_every_rules_file_has_its_unit_tests() -> None:
    assert {file.name for file in RULES.iterdir()} == {file.name for file in UNIT_TESTS.iterdir()}
