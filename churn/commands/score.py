"""`churn score`: customers in the order in which an offer to them is worth most."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from churn import console
from churn.argument_types import moment, part, positive, whole
from churn.command import argument, command
from churn.commands.step import context_of
from core.errors import ConfigError

if TYPE_CHECKING:
    from churn.settings import Settings


@command(
    "score",
    "every customer at one moment, ranked by what an offer is expected to bring",
    examples=(
        "churn score --as-of 1998-07-01 --out customers.parquet",
        "churn score --out calls.csv --top 500 --reasons 3",
        "churn score --out calls.csv --top 500 --source-ids",
        "churn score --out before.parquet --version previous",
        "churn score --out calls.csv --part 0/4",
        "churn score --out calls.csv --merge",
    ),
    arguments=(
        argument("--as-of", type=moment, metavar="DATE", help="ISO date, UTC; default: the newest snapshot"),
        argument(
            "--out", type=Path, required=True, metavar="FILE", help="ends in .parquet or .csv; replaced"
        ),
        argument(
            "--version",
            metavar="VERSION",
            help="a model by number, alias or version (churn registry list), with the features that it was"
            " trained on; default: packaged last",
        ),
        argument("--top", type=positive, metavar="N", help="only the N most worthwhile customers"),
        argument(
            "--reasons",
            type=whole,
            default=0,
            metavar="N",
            help="the N strongest reasons of each customer in words: slow, best with --top",
        ),
        argument(
            "--source-ids",
            action="store_true",
            help="add the identifiers of the source (needs the mask key; the file gets mode 600;"
            " it is recorded)",
        ),
        argument(
            "--part",
            type=part,
            metavar="I/N",
            help="score the part I of N ranges of customers, counted from 0, into FILE.parts",
        ),
        argument(
            "--merge",
            action="store_true",
            help="make FILE of all parts in FILE.parts, equal to the list made at once",
        ),
    ),
)
def score(settings: Settings, arguments: Namespace) -> int:
    from data.config import utc_text
    from pipelines.score import ScoreRequest, score_customers
    from pipelines.score_parts import Part

    if arguments.merge:
        return _merge(settings, arguments)
    range_of_customers = None if arguments.part is None else Part(*arguments.part)
    with console.bar("customers") as bar:
        wanted = ScoreRequest(
            arguments.out,
            arguments.as_of,
            arguments.top,
            arguments.reasons,
            arguments.version,
            arguments.source_ids,
            range_of_customers,
        )
        done = score_customers(settings, wanted, bar.describe, bar.show)
    if arguments.source_ids:
        from pipelines.source_ids import record_naming

        context = context_of(settings, bar.describe)
        record_naming(context, arguments.out, done.ranked.rows, utc_text(done.as_of))
    facts = {
        "customers scored": f"{done.ranked.scored:,}",
        "rows written": f"{done.ranked.rows:,}",
        "as of": f"{done.as_of:%Y-%m-%d %H:%M} UTC",
        "model": done.model_version,
    }
    console.pairs("Scores", facts)
    if range_of_customers is None:
        console.out.print(f"Ranked by expected value: {arguments.out}", soft_wrap=True)
    else:
        console.out.print(f"A part: {range_of_customers.file(arguments.out)}", soft_wrap=True)
        console.out.print(
            f"When all are there: [bold]churn score --merge --out {arguments.out}[/]", soft_wrap=True
        )
    return 0


def _merge(settings: Settings, arguments: Namespace) -> int:
    from pipelines.score_parts import merge_parts

    refused = {
        "--as-of": arguments.as_of,
        "--top": arguments.top,
        "--reasons": arguments.reasons or None,
        "--version": arguments.version,
        "--part": arguments.part,
    }
    for flag, value in refused.items():
        if value is not None:
            raise ConfigError(f"{flag}: leave it out with --merge; the parts were made with it")
    with console.err.status("merging") as shown:
        ranked, facts = merge_parts(settings, arguments.out, arguments.source_ids)
        if arguments.source_ids:
            from pipelines.source_ids import record_naming

            record_naming(context_of(settings, shown.update), arguments.out, ranked.rows, facts["moment"])
    found = {
        "rows written": f"{ranked.rows:,}",
        "as of": facts["moment"],
        "model": facts["model_version"],
    }
    console.pairs("Scores", found)
    console.out.print(f"Ranked by expected value: {arguments.out}", soft_wrap=True)
    return 0
