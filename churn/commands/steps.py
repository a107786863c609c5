"""`churn steps ...`: the steps of the loop as tasks of an orchestrator."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from churn import console
from churn.command import JSON, argument, command
from churn.commands.step import context_of, reporter
from churn.lock import alone
from core.errors import ConfigError

if TYPE_CHECKING:
    from churn.settings import Settings


@command(
    "steps list",
    "the steps in order, and which needs which; with --json the graphs for orchestrators",
    examples=("churn steps list", "churn steps list --json"),
    arguments=(JSON,),
)
def list_all(settings: Settings, arguments: Namespace) -> int:
    from pipelines.steps import STEPS
    from pipelines.steps.graph import DAILY, SCHEDULE, training

    nodes = training(STEPS, context_of(settings, lambda message: None))
    if arguments.json:
        _print(
            {"schedule": SCHEDULE, "daily": list(map(asdict, DAILY)), "training": list(map(asdict, nodes))}, 1
        )
    else:
        rows = [(node.name, node.title, ", ".join(node.needs)) for node in nodes]
        console.table("Steps of the loop", ("step", "what it does", "needs"), rows)
    return 0


@command(
    "steps run",
    "one step, unless its inputs are unchanged since its last success; exit code 3 when the gates refuse",
    examples=("churn steps run ingest", "churn steps run train --force", "churn steps run package --json"),
    arguments=(
        argument("step", metavar="STEP", help="a name of churn steps list"),
        argument("--force", action="store_true", help="run it again, changed or not"),
        JSON,
    ),
)
def run(settings: Settings, arguments: Namespace) -> int:
    from pipelines.engine import digests_of, run_steps
    from pipelines.loop import gate_failure
    from pipelines.steps import STEPS
    from pipelines.steps.graph import slug

    steps = {slug(step.name): step for step in STEPS}
    step = steps.get(arguments.step)
    if step is None:
        raise ConfigError(f"steps run {arguments.step}: no such step; one of {', '.join(steps)}")
    with alone(settings.files), console.steps(1) as shown:
        context = context_of(settings, shown.describe)
        (outcome,) = run_steps(
            [step], context, arguments.force, lambda one: shown.start(one.title), reporter(shown)
        )
    if arguments.json:
        record = {"step": arguments.step, "skipped": outcome.skipped}
        _print({**record, "digests": digests_of(step, context)})
    if step.judges and (refusal := gate_failure(settings.files)) is not None:
        raise refusal
    return 0


def _print(content: Any, indent: int | None = None) -> None:
    """As plain text for programs: without colours, and without line breaks at the width of a terminal."""
    console.out.print(json.dumps(content, indent=indent), soft_wrap=True, markup=False, highlight=False)
