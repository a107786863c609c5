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
SERIES = re.compile(r"(?<![\w:$\"])((?:churn|envoy|ts)[_:][a-zA-Z0-9_:]*)\b(?!\s*=)")
"""Series of ours, of Envoy and of TorchServe; a word before `=` is a label."""


def rule_files() -> list[Path]:
    return sorted(RULES.glob("*.yml"))


def rules(file: Path) -> Iterator[dict[str, Any]]:
    """Alerting and recording rules, in their order."""
    for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
        yield from group["rules"]


def alerts() -> list[dict[str, Any]]:
    return [rule for file in rule_files() for rule in rules(file) if "alert" in rule]


def series_in(expression: str) -> set[str]:
    """The names of series in PromQL, without those within quotes and comments."""
    plain = re.sub(r"\"[^\"]*\"|'[^']*'|#[^\n]*", '""', expression)
    plain = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", plain)
    return set(SERIES.findall(plain))
