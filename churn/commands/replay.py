"""`churn replay`: what a policy of retraining would have done over real history."""

from __future__ import annotations

from argparse import Namespace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from churn import console
from churn.argument_types import moment, whole, words
from churn.command import argument, command

if TYPE_CHECKING:
    from churn.settings import Settings


@command(
    "replay",
    "the whole loop over real history under a simulated clock: train, judge, roll out, take back",
    examples=(
        "churn replay --from 1998-01-01 --to 1998-07-01 --fast",
        "churn replay --from 1998-01-01 --to 1998-07-01 --step fortnight --policy every:1,never --fast",
        "churn replay --from 1998-01-01 --to 1998-07-01 --policy ours,drift,performance --seed 7 --fast",
    ),
    arguments=(
        argument("--from", dest="first", type=moment, required=True, metavar="DATE", help="ISO date, UTC"),
        argument("--to", dest="last", type=moment, required=True, metavar="DATE", help="ISO date, UTC"),
        argument(
            "--policy",
            type=words,
            metavar="NAME[,NAME]",
            help="never, every:N, drift, performance, ours; default: replay.policies",
        ),
        argument(
            "--step",
            choices=("month", "fortnight", "week"),
            default="month",
            help="how often customers are served and a policy decides",
        ),
        argument(
            "--fast",
            action="store_true",
            help="serve in this process with the exported program instead of a real TorchServe",
        ),
        argument("--seed", type=whole, default=42, metavar="N", help="of everything random"),
    ),
)
def replay(settings: Settings, arguments: Namespace) -> int:
    from replay.run import ReplayRequest, run_replay

    request = ReplayRequest(
        arguments.first,
        arguments.last,
        arguments.step,
        arguments.policy or settings.replay.policies,
        arguments.fast,
        arguments.seed,
    )
    with console.bar("replay") as bar:
        done = run_replay(settings, request, lambda: datetime.now(UTC), bar.describe)
    console.table("Policies", done.columns, done.rows)
    console.out.print(f"Report: {done.report}\nLedgers: {done.folder}", soft_wrap=True)
    return 0
