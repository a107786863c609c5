"""`churn monitor`: measures data and model in production, and reports what differs."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from churn import console
from churn.argument_types import moment
from churn.command import JSON, argument, command
from churn.commands.step import context_of

if TYPE_CHECKING:
    from churn.settings import Settings
    from monitoring.findings import Monitored

FAILED = 4
"""Exit code of `--fail-on` when there is such a finding."""


@command(
    "monitor",
    "measures data and model in production and records what differs; it starts nothing",
    examples=(
        "churn monitor",
        "churn monitor --as-of 1998-07-01 --dry-run",
        "churn monitor --json --fail-on page",
    ),
    arguments=(
        argument("--as-of", type=moment, metavar="DATE", help="end of the window, UTC; default: now"),
        argument("--dry-run", action="store_true", help="store nothing"),
        argument(
            "--fail-on",
            choices=("page", "ticket"),
            help=f"exit code {FAILED} if there is a finding of this severity or a higher one",
        ),
        JSON,
    ),
)
def monitor(settings: Settings, arguments: Namespace) -> int:
    from pipelines import monitor as work

    with console.steps(1) as shown:
        shown.start("monitor")
        context = context_of(settings, shown.describe)
        run = work.monitor(context, arguments.as_of or context.as_of, arguments.dry_run)
    if arguments.json:
        console.out.print_json(json.dumps(record_of(run)))
    else:
        _show(run)
    failing = {None: (), "page": ("page",), "ticket": ("page", "ticket")}[arguments.fail_on]
    return FAILED if any(one.severity in failing for one in run.checked.findings) else 0


def record_of(run: Monitored) -> dict[str, Any]:
    """The run in JSON's types; a number that could not be measured is null."""

    def number(value: float | None) -> float | None:
        return None if value is None or not math.isfinite(value) else value

    return {
        "model": run.model,
        "at": run.at.isoformat(),
        "since": run.since.isoformat(),
        "version": run.version,
        "evidence_sha256": run.evidence_sha256,
        "findings": [
            {
                "check": one.check,
                "subject": one.subject,
                "cause": one.cause.value,
                "severity": one.severity.value,
                "message": one.message,
                "explained_by": one.explained_by,
                "numbers": {name: number(value) for name, value in one.numbers.items()},
            }
            for one in run.checked.findings
        ],
        "measurements": [
            {
                "name": one.name,
                "subject": one.subject,
                "version": one.version,
                "value": number(one.value),
                "rows": one.rows,
                "low": number(one.low),
                "high": number(one.high),
            }
            for one in run.checked.measurements
        ],
    }


def _show(run: Monitored) -> None:
    checked = run.checked
    shown = [one for one in checked.findings if not one.explained_by]
    console.out.print(f"{run.model}, {run.since:%Y-%m-%d} to {run.at:%Y-%m-%d %H:%M} UTC")
    if shown:
        console.table(
            "Findings",
            ("severity", "cause", "check", "subject", "what"),
            [(one.severity.value, one.cause.value, one.check, one.subject, one.message) for one in shown],
        )
    explained = sum(bool(one.explained_by) for one in checked.findings)
    console.out.print(
        f"{len(checked.findings)} findings ({explained} explained by others),"
        f" {len(checked.measurements)} measurements"
    )
