"""`churn forget`: remove customers from everything that this workspace holds."""

from argparse import Namespace

from churn import console
from churn.commands.step import context_of, identifiers
from churn.lock import alone
from churn.settings import Settings
from core.errors import ChurnError


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
            f"{proof.remaining} mentions are still there, written by another process meanwhile; stop the"
            " server or wait until its log has been written, and give the command again"
        )
    console.out.print("Next: [bold]churn run[/], so that features, model and report are made without them")
    return 0
