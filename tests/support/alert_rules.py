"""The rules of monitoring/prometheus as tests read them, and the names of series in PromQL."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
MONITORING = REPOSITORY / "monitoring"
RULES = MONITORING / "prometheus" / "rules"
RUNBOOKS = REPOSITORY / "docs" / "runbooks"
SERIES = re.compile(r"(?<![\w:$])((?:churn|envoy|ts)[_:][a-zA-Z0-9_:]*)\b")
"""Series of ours, of Envoy and of TorchServe."""


def rule_files() -> list[Path]:
    return sorted(RULES.glob("*.yml"))


def rules(file: Path) -> Iterator[dict[str, Any]]:
    """Alerting and recording rules, in their order."""
    for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
        yield from group["rules"]


def alerts() -> list[dict[str, Any]]:
    return [rule for file in rule_files() for rule in rules(file) if "alert" in rule]


def series_in(expression: str) -> set[str]:
    """The names of series in PromQL, without the labels that are selected or grouped by."""
    plain = re.sub(r"\{[^{}]*\}", "", expression)
    plain = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", plain)
    return set(SERIES.findall(plain))


SELECTOR = re.compile(r"((?:churn|envoy|ts)[_:][a-zA-Z0-9_:]*)\{([^{}]*)\}")
MATCHER = re.compile(r"(\w+)\s*(=~|!~|!=|=)\s*\"([^\"]*)\"")


def matchers_in(expression: str) -> list[tuple[str, str, str]]:
    """Series, label and value (or pattern) of each positive matcher in PromQL."""
    return [
        (series, label, value)
        for series, inside in SELECTOR.findall(expression)
        for label, kind, value in MATCHER.findall(inside)
        if kind in ("=", "=~")
    ]


def expressions() -> dict[str, str]:
    """The PromQL of each rule and of each query of a dashboard, by its place."""
    from monitoring.grafana.dashboards import DASHBOARDS

    found = {
        f"{file.stem} {number} {rule.get('alert') or rule['record']}": rule["expr"]
        for file in rule_files()
        for number, rule in enumerate(rules(file))
    }
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for number, query in enumerate(panel.queries):
                found[f"{dashboard.uid} {panel.title} {number}"] = query.expression
    return found
