"""`churn run`: all steps in order."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from churn import console
from churn.command import argument, command
from churn.commands.shown import show_answers, show_gates, show_models, show_rollout
from churn.commands.step import context_of, reporter
from churn.lock import alone

if TYPE_CHECKING:
    from churn.settings import Settings


@command(
    "run",
    "the whole loop: ingest, features, tune, train, gates, package, serve, canary, report",
    examples=(
        "churn run",
        "churn run --force",
        "churn run --no-rollout",
        "churn run --config examples/telco.yaml",
    ),
    arguments=(
        argument("--force", action="store_true", help="do every step again, changed or not"),
        argument(
            "--no-rollout", action="store_true", help="end with a live server instead of a canary on trial"
        ),
    ),
)
def run(settings: Settings, arguments: Namespace) -> int:
    from pipelines.loop import TOTAL, run_loop

    with alone(settings.files), console.steps(TOTAL) as shown:
        context = context_of(settings, shown.describe)
        record, answers, refusal = run_loop(
            context, arguments.force, shown.start, reporter(shown), not arguments.no_rollout
        )
    show_models(record)
    show_gates(record["gates"])
    if answers:
        console.pairs("Archive", record["archive"])
        show_answers(answers)
        show_rollout(record["rollout"])
    console.out.print(f"Report: {record['report']}\nFacts for machines: {settings.files.run_record}")
    if refusal is not None:
        raise refusal
    console.out.print("Next: [bold]churn serve[/] in one terminal, [bold]churn predict[/] in another")
    return 0
