"""`churn deploy` and `churn rollout start`: check an archive, upload it, and start its rollout."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from churn import console
from churn.command import REASON, argument, command
from churn.commands.rollout.controlled import show_begun
from churn.commands.step import context_of
from churn.lock import alone

if TYPE_CHECKING:
    from churn.settings import Settings

REPORT = argument(
    "--report", type=Path, metavar="FILE", help="its gate_report.json; default: the workspace's"
)


@command(
    "deploy",
    "check signature and gates, upload, start the rollout; exit code 2 or 3 when it is refused, 5 when no"
    " controller runs",
    examples=(
        "churn deploy",
        'churn deploy --reason "trained on March" --set rollout.store=s3://models/churn',
        "churn deploy churn-0123456789ab.mar --report gates/gate_report.json --store-only",
    ),
    arguments=(
        argument(
            "file", type=Path, nargs="?", metavar="FILE", help="a .mar with its .sig; default: packaged last"
        ),
        REPORT,
        argument(
            "--reason", default="passed its gates", help="why; recorded with your name (default: %(default)s)"
        ),
        argument("--store-only", action="store_true", help="to the store and no further"),
    ),
)
def deploy(settings: Settings, arguments: Namespace) -> int:
    from pipelines.deploy import deploy as put

    with console.err.status("deploying") as shown:
        context = context_of(settings, shown.update)
        with alone(settings.files):
            done = put(context, arguments.file, arguments.report)
        rollout, first = None, False
        if not arguments.store_only:
            from pipelines.rollout import begin
            from pipelines.rollout import start as start_rollout

            _refuse_without_features(settings, arguments.file)
            first = begin(context, done.candidate, arguments.reason)
            rollout = None if first else start_rollout(context, done.candidate, arguments.reason)
    console.pairs(
        "Deployed" if done.fresh else "Deployed before; nothing was written",
        {
            "version": done.candidate.version,
            "sha256": done.candidate.sha256,
            "store": done.uri,
            "loaded from": done.candidate.archive,
        },
    )
    if first:
        console.out.print("It is the first model of this cluster, and serves all requests.")
    if rollout is None:
        return 0
    console.out.print(f"Rollout {rollout.id} has begun.")
    return show_begun(settings, rollout)


@command(
    "rollout start",
    "put the newest archive on trial: the same checks as churn deploy",
    examples=(
        'churn rollout start --reason "trained on March"',
        'churn rollout start --archive churn-0123456789ab.mar --reason "again"',
    ),
    arguments=(
        argument("--archive", type=Path, metavar="FILE", help="default: packaged last"),
        REPORT,
        REASON,
    ),
)
def start(settings: Settings, arguments: Namespace) -> int:
    from pipelines.deploy import deploy as put
    from pipelines.rollout import start as begin

    with console.err.status("checking") as shown, alone(settings.files):
        context = context_of(settings, shown.update)
        done = put(context, arguments.archive, arguments.report)
        _refuse_without_features(settings, arguments.archive)
        rollout = begin(context, done.candidate, arguments.reason)
    console.out.print(f"Rollout {rollout.id} of version {rollout.candidate.version} has begun.")
    return show_begun(settings, rollout)


def _refuse_without_features(settings: Settings, archive: Path | None) -> None:
    """Raise ArchiveError for an archive whose features are not online. The pods of a cluster state that
    themselves: the feature store may be out of reach of this machine."""
    from pipelines.candidates import refuse_offline
    from pipelines.live import newest_archive
    from pipelines.rollout import ON_THIS_MACHINE
    from pipelines.verified import verified

    if settings.rollout.target == ON_THIS_MACHINE:
        refuse_offline(settings, verified(settings, archive or newest_archive(settings.files)))
