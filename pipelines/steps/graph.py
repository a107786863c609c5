"""What orchestrators execute: the training as a graph of steps, and the daily check.

Which step needs the results of which is computed from the files that they exchange. `churn run` executes the
steps in one process; an orchestrator executes each as a task, by the command of its node.
pipelines/graph.json, written by `churn steps list --json`, has the graphs for orchestrators, whose
environments do not contain this project.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.code import ROOT
from pipelines.context import Context
from pipelines.engine import Step

GRAPH_FILE = ROOT / "pipelines" / "graph.json"
SCHEDULE = "0 2 * * *"
"""Cron, UTC: when the daily check runs."""


@dataclass(frozen=True)
class Node:
    """A task of an orchestrator."""

    name: str
    """Of letters and hyphens."""
    title: str
    command: tuple[str, ...]
    """The arguments of `churn`."""
    needs: tuple[str, ...]
    """Names of nodes that have to succeed before."""
    retries: int = 0
    """How often it may be repeated after a failure."""
    forced: tuple[str, ...] = ()
    """Further arguments when a person forces a training."""


DAILY = (
    Node("monitor", "Measure data and model in production", ("monitor",), (), retries=1),
    Node(
        "retrain",
        "Let the governor decide, and train if it grants it",
        ("retrain",),
        ("monitor",),
        forced=("--force", "--reason", "forced in the orchestrator"),
    ),
)
"""The drift check comes first. The second command reads the database itself, so it may run at any time, and
does nothing when nothing is to be done."""


def training(steps: Sequence[Step], context: Context) -> tuple[Node, ...]:
    """The steps as nodes, in an order in which they can be executed."""
    written = {step.name: set(step.writes(context)) for step in steps}
    return tuple(
        Node(
            slug(step.name),
            step.title,
            ("steps", "run", slug(step.name), "--json"),
            tuple(
                slug(other.name)
                for other in steps[:number]
                if any(_is_from(path, written[other.name]) for path in step.reads(context))
            ),
            retries=0 if step.judges else 1,
        )
        for number, step in enumerate(steps)
    )


def slug(name: str) -> str:
    """The name as one word."""
    return name.replace(" ", "-")


def _is_from(path: Path, written: set[Path]) -> bool:
    return path in written or any(parent in written for parent in path.parents)
