"""kserve/components/monitoring: the rules are those of Prometheus on one machine, and the exporter starts."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_manifests import only

from churn.cli import parser
from churn.settings import load_settings
from core.layers import CONFIGS
from monitoring.rules import OBJECT, ON_A_CLUSTER, RULES, as_yaml, prometheus_rule
from support.alert_rules import rules

OVERLAYS = ("standard", "knative")


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_file_is_made_from_the_rules() -> None:
    assert OBJECT.read_text(encoding="utf-8") == as_yaml(prometheus_rule()), (
        "run `python -m monitoring.rules`"
    )


def test_a_cluster_has_each_rule_that_applies_to_it(overlay: str) -> None:
    groups = only(overlay, "PrometheusRule")["spec"]["groups"]
    applied = [rule for group in groups for rule in group["rules"]]
    assert applied == [rule for name in ON_A_CLUSTER for rule in rules(RULES / f"{name}.yml")]
    assert {file.stem for file in RULES.glob("*.yml")} - set(ON_A_CLUSTER) == {"gateway", "stream"}
    assert len({group["name"] for group in groups}) == len(groups)


def test_one_machine_has_all_rules_but_those_of_further_processes() -> None:
    config = yaml.safe_load((RULES.parent / "prometheus.yml").read_text(encoding="utf-8"))
    loaded = {Path(file).stem for file in config["rule_files"]}
    assert {file.stem for file in RULES.glob("*.yml")} - loaded == {"controller", "stream"}, (
        "streams run where they are wanted"
    )


def test_the_exporter_starts_by_its_manifest_and_is_scraped(
    overlay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment: dict[str, Any] = only(overlay, "Deployment", "churn-monitor")
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    profile = (CONFIGS / "profiles" / "exporter.yaml").read_text(encoding="utf-8")
    assert {one["name"] for one in container["env"]} == set(re.findall(r"\$\{(\w+)\}", profile))
    for one in container["env"]:
        monkeypatch.setenv(one["name"], f"sqlite:///{one['name']}.db")
    arguments = parser().parse_args(container["args"])
    assert arguments.act.__module__ == "churn.commands.monitor_export"
    settings = load_settings(arguments.profile)
    (port,) = container["ports"]
    assert settings.monitoring.exporter.address == f"0.0.0.0:{port['containerPort']}"
    labels = pod["metadata"]["labels"].items()
    monitor = only(overlay, "PodMonitor", "churn-monitor")["spec"]
    policy = only(overlay, "NetworkPolicy", "churn-monitor")["spec"]
    for selector in (monitor["selector"], policy["podSelector"], deployment["spec"]["selector"]):
        assert selector["matchLabels"].items() <= labels
    assert monitor["podMetricsEndpoints"][0]["port"] == port["name"]
    assert policy["ingress"][0]["ports"][0]["port"] == port["containerPort"]
    security = container["securityContext"] | pod["spec"]["securityContext"]
    assert security["runAsNonRoot"] and security["readOnlyRootFilesystem"]
    assert pod["spec"]["automountServiceAccountToken"] is False
    image = only(overlay, "Deployment", "churn-rollout")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert container["image"] == image
