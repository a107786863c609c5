"""`churn trace`: what one prediction was made from."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from churn import console
from churn.command import JSON, argument, command
from churn.commands.step import context_of, identifiers

if TYPE_CHECKING:
    from churn.settings import Settings
    from pipelines.trace.link import Link


@command(
    "trace",
    "follow a prediction to model, gates, run, data, features and source rows, each verified by its hash;"
    " exit code 1 when something does not agree",
    examples=(
        "churn trace 10a30ae2-393e-4d46-b261-7bf5597f9ada",
        "churn trace 10a30ae2-393e-4d46-b261-7bf5597f9ada --customer 123 --json",
        "churn trace 10a30ae2-393e-4d46-b261-7bf5597f9ada --source-ids",
    ),
    arguments=(
        argument("prediction", metavar="PREDICTION_ID", help="the request_id of an answer, as in the log"),
        argument(
            "--customer",
            metavar="ID",
            help="as the source writes it, or masked; needed if the request was about several customers",
        ),
        argument(
            "--log",
            type=Path,
            action="append",
            default=[],
            metavar="FOLDER",
            help="a folder of predictions; default: those of the workspace",
        ),
        argument(
            "--source-ids",
            action="store_true",
            help="name the customer as the source does (needs the mask key; it is recorded)",
        ),
        JSON,
    ),
)
def trace(settings: Settings, arguments: Namespace) -> int:
    from pipelines.trace.chain import TraceRequest
    from pipelines.trace.chain import trace as follow

    customer = None if arguments.customer is None else identifiers(settings, [arguments.customer])[0]
    wanted = TraceRequest(arguments.prediction, customer, tuple(arguments.log), arguments.source_ids)
    with console.steps(1) as shown:
        shown.start("trace")
        context = context_of(settings, shown.describe)
        links = follow(settings, wanted, shown.describe)
    if arguments.source_ids:
        from pipelines.source_ids import record_naming

        record_naming(context, Path("/dev/stdout"), 1, str(links[-1].facts["customer (masked)"]))
    if arguments.json:
        console.out.print_json(json.dumps([_record(link) for link in links], default=str))
    else:
        for link in links:
            _show(link)
    return 0 if all(link.holds for link in links) else 1


def _show(link: Link) -> None:
    console.out.print(f"[bold]{link.name}[/]")
    for name, value in link.facts.items():
        console.out.print(f"  {name}: {console.escape(str(value))}", soft_wrap=True)
    for proof in link.proofs:
        mark = "[green]✓[/]" if proof.holds else "[bold red]✗[/]"
        console.out.print(f"  {mark} {console.escape(proof.statement)}", soft_wrap=True)
    if link.rows:
        names = list(link.rows[0])
        console.table("", names, [[str(row[name]) for name in names] for row in link.rows])


def _record(link: Link) -> dict[str, Any]:
    return {
        "link": link.name,
        "holds": link.holds,
        "facts": dict(link.facts),
        "proofs": [{"statement": proof.statement, "holds": proof.holds} for proof in link.proofs],
        "rows": [dict(row) for row in link.rows],
    }
