"""`churn deploy`: from gates that passed to a rollout that has begun."""

from argparse import Namespace

from churn import console
from churn.commands.rollout import begun
from churn.commands.step import context_of
from churn.lock import alone
from churn.settings import Settings


def deploy(settings: Settings, arguments: Namespace) -> int:
    from pipelines.deploy import deploy as put

    with console.err.status("deploying") as shown:
        context = context_of(settings, shown.update)
        with alone(settings.files):
            done = put(context, arguments.file, arguments.report)
        rollout = None
        if not arguments.store_only:
            from pipelines.rollout import start

            rollout = start(context, done.candidate, arguments.reason)
    console.pairs(
        "Deployed" if done.fresh else "Deployed before; nothing was written",
        {
            "version": done.candidate.version,
            "sha256": done.candidate.sha256,
            "store": done.uri,
            "loaded from": done.candidate.archive,
        },
    )
    if rollout is None:
        return 0
    console.out.print(f"Rollout {rollout.id} has begun.")
    return begun(settings, rollout)
