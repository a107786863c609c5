"""`churn score`: customers in the order in which an offer to them is worth most."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from churn import console
from churn.argument_types import moment, positive, whole
from churn.command import argument, command
from churn.commands.step import context_of

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
    ),
)
def score(settings: Settings, arguments: Namespace) -> int:
    from data.config import utc_text
    from pipelines.score import ScoreRequest, score_customers

    with console.bar("customers") as bar:
        wanted = ScoreRequest(
            arguments.out,
            arguments.as_of,
            arguments.top,
            arguments.reasons,
            arguments.version,
            arguments.source_ids,
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
    console.out.print(f"Ranked by expected value: {arguments.out}", soft_wrap=True)
    return 0
