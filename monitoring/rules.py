"""The rules of Prometheus as objects of its operator; `python -m monitoring.rules` writes those of kserve/.

Rules are written once, in `prometheus/rules`. On a cluster another gateway than Envoy may answer, and the
controller of rollouts is a process of its own: `ON_A_CLUSTER` names the files that apply there. A stream runs
where it is wanted, so its rules are an object of their own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

RULES = Path(__file__).with_name("prometheus") / "rules"
ON_A_CLUSTER = ("serving", "rollout", "controller", "monitoring", "retraining")
OF_A_STREAM = ("stream",)
_COMPONENTS = Path(__file__).resolve().parent.parent / "kserve" / "components"
OBJECT, STREAM_OBJECT = (_COMPONENTS / name / "rules.yaml" for name in ("monitoring", "stream-monitoring"))
HEADER = "# Made from monitoring/prometheus/rules by `python -m monitoring.rules`; do not edit.\n"


class _Dumper(yaml.SafeDumper):
    """Writes PromQL of several lines as a block, so that it can be read."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def prometheus_rule(name: str = "churn", files: Sequence[str] = ON_A_CLUSTER) -> dict[str, Any]:
    """A PrometheusRule (monitoring.coreos.com/v1) with the groups of all these files."""
    groups = []
    for file in files:
        groups += yaml.safe_load((RULES / f"{file}.yml").read_text(encoding="utf-8"))["groups"]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": name},
        "spec": {"groups": groups},
    }


def as_yaml(content: dict[str, Any]) -> str:
    """The text of the file."""
    return HEADER + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    OBJECT.write_text(as_yaml(prometheus_rule()), encoding="utf-8")
    STREAM_OBJECT.write_text(as_yaml(prometheus_rule("churn-stream", OF_A_STREAM)), encoding="utf-8")
