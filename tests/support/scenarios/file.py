"""The scenarios and what is expected of them, from scenarios.yaml, whose head describes its form."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from support.kube.api_server import merged

FILE = Path(__file__).with_name("scenarios.yaml")
COMMON = ("seen", "traffic")
KNATIVE_PODS = 1
"""minReplicas in Knative mode."""

State = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """What is done, and the states after it."""

    words: str
    number: int
    passed: dict[str, list[Any]]
    """Parts of the state -> each value that it takes, in order; the last is the settled one."""
    settled: State
    fails: bool
    """The action ends with ClusterError."""


@dataclass(frozen=True)
class Scenario:
    name: str
    overlay: str
    """Of kserve/overlays."""
    steps: tuple[Step, ...]

    @property
    def mode(self) -> str:
        return "knative" if self.overlay.startswith("knative") else "standard"

    @property
    def id(self) -> str:
        return f"{self.overlay}: {self.name}"


def scenarios() -> list[Scenario]:
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    start = content["start"]
    return [
        Scenario(one["scenario"], overlay, tuple(_steps([*start, *one["steps"]], overlay)))
        for one in content["scenarios"]
        for overlay in one["overlays"]
    ]


def _steps(steps: list[Any], overlay: str) -> Iterator[Step]:
    state: State = {}
    for number, step in enumerate(steps, 1):
        words = step["do"]
        change = {key: step[key] for key in COMMON if key in step} | step.get(overlay, {})
        passed, fresh = {}, {**state}
        for key, patches in change.items():
            values = []
            for patch in patches if isinstance(patches, list) and key in COMMON else [patches]:
                fresh[key] = merged(fresh.get(key), patch)
                values.append(fresh[key])
            passed[key] = values
        state = fresh
        in_order = {key: passed.get(key, []) for key in COMMON}
        yield Step(words, number, in_order, state, bool(step.get("fails")))
