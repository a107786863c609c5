"""`churn forget`: removes customers from all files and stores of this workspace."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from churn import console
from churn.command import argument, command
from churn.commands.step import context_of, identifiers
from churn.lock import alone
from core.errors import ChurnError

if TYPE_CHECKING:
    from churn.settings import Settings


@command(
    "forget",
    "remove customers from records, features, stores, scores and logs, and write a proof",
    examples=('churn forget 4711 --reason "request 2026-17"',),
    arguments=(
        argument("user_id", nargs="+", help="identifiers as they stand in the source, or masked ones"),
        argument("--reason", required=True, help="why, for example the request's number; recorded"),
    ),
)
def forget(settings: Settings, arguments: Namespace) -> int:
    from pipelines.forget import forget as remove

    user_ids = identifiers(settings, arguments.user_id)
    with console.err.status("forgetting") as shown, alone(settings.files):
        proof = remove(context_of(settings, shown.update), user_ids, arguments.reason, shown.update)
    console.table(
        f"Removed: {len(user_ids)} customers", ("place", "rows or mentions"), sorted(proof.removed.items())
    )
    console.out.print(f"Proof: {proof.file}", soft_wrap=True)
    if proof.remaining:
        raise ChurnError(
            f"{proof.remaining} mentions remain, because another process wrote them meanwhile; stop the"
            " server, or wait until its log has been written, and run the command again"
        )
    console.out.print("Next: [bold]churn run[/], so that features, model and report are made without them")
    return 0
