"""Alertmanager's configuration: it is accepted, reaches the right receivers, and contains no secret."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from support.alert_rules import MONITORING, alerts

FILE = MONITORING / "alertmanager" / "alertmanager.yml"
CONFIG: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
needs_amtool = pytest.mark.skipif(
    shutil.which("amtool") is None, reason="there is no amtool here: apt-get install prometheus-alertmanager"
)


def amtool(*words: str) -> str:
    done = subprocess.run(["amtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_amtool
def test_alertmanager_accepts_it() -> None:
    assert "SUCCESS" in amtool("check-config", str(FILE))


@needs_amtool
@pytest.mark.parametrize("alert", alerts(), ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_each_alert_reaches_those_who_act(alert: Mapping[str, Any]) -> None:
    labels = {"alertname": alert["alert"], **alert["labels"]}
    words = [f"{name}={value}" for name, value in labels.items()]
    found = amtool("config", "routes", "test", f"--config.file={FILE}", *words).strip()
    wakes = ["retraining"] if alert["alert"] in ("ChurnModelHarm", "ChurnDrift") else []
    person = {"page": "pages", "ticket": "tickets"}[alert["labels"]["severity"]]
    assert found.split(",") == [*wakes, person]


def test_a_page_reaches_pagerduty_and_slack_and_resolves_there() -> None:
    receivers = {receiver["name"]: receiver for receiver in CONFIG["receivers"]}
    for name, ways in {
        "pages": ("pagerduty_configs", "slack_configs"),
        "tickets": ("slack_configs",),
    }.items():
        for way in ways:
            assert [one["send_resolved"] for one in receivers[name][way]] == [True]
    assert receivers["retraining"]["webhook_configs"][0]["send_resolved"] is False


def test_groups_wait_at_most_five_minutes() -> None:
    """Prometheus looks back five minutes: a longer interval would send what is over."""
    found = [value for key, value in _leaves(CONFIG["route"]) if key in ("group_wait", "group_interval")]
    assert len(found) == 4
    assert all(int(value[:-1]) * {"s": 1, "m": 60}[value[-1]] <= 300 for value in found)


def test_all_secrets_are_files() -> None:
    secret = re.compile(r"url|key|token|password|credentials|secret")
    for key, value in _leaves(CONFIG):
        if secret.search(key):
            assert (
                str(value).startswith("/etc/alertmanager/secrets/") or value == "http://127.0.0.1:9095/wake"
            ), (key, value)


def test_faults_suppress_symptoms_that_are_alerts_of_ours() -> None:
    names = {rule["alert"] for rule in alerts()}
    causes = {rule["labels"].get("cause") for rule in alerts()}
    pairs = set()
    for rule in CONFIG["inhibit_rules"]:
        (source, target) = (
            _matched(rule[f"{side}_matchers"][0], names, causes) for side in ("source", "target")
        )
        assert source and target, rule
        pairs |= {(one, other) for one in source for other in target}
    assert ("ChurnModelServerDown", "ChurnGatewayErrorBudgetBurn") in pairs
    assert ("corruption", "harm") in pairs and ("harm", "drift") in pairs
    assert not {(one, other) for one, other in pairs if (other, one) in pairs}, "two alerts hide each other"


def _matched(matcher: str, names: set[str], causes: set[Any]) -> list[str]:
    """The alerts or causes that a matcher selects."""
    found = re.fullmatch(r'(alertname|cause)(=~?)"([^"]+)"', matcher)
    assert found, matcher
    among = names if found[1] == "alertname" else causes - {None}
    pattern = found[3] if found[2] == "=~" else re.escape(found[3])
    return [one for one in among if re.fullmatch(pattern, one)]


def _leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _leaves(value, name)
    elif isinstance(tree, list):
        for value in tree:
            yield from _leaves(value, key)
    else:
        yield key, tree
