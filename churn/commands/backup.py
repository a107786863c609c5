"""`churn backup` and `churn restore`: all state of a profile, saved and brought back."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from churn import console
from churn.command import argument, command
from churn.commands.step import context_of
from churn.lock import alone

if TYPE_CHECKING:
    from churn.settings import Settings


@command(
    "backup",
    "save workspace, databases, artifacts, models, records, online features and topics to backup.store",
    examples=(
        "churn backup --set backup.store=/mnt/backup/churn",
        "churn backup --profile production",
    ),
)
def backup(settings: Settings, arguments: Namespace) -> int:
    from pipelines.backup.backup import backup as save

    with console.err.status("saving") as shown, alone(settings.files):
        name, counts = save(context_of(settings, shown.update))
    console.pairs(f"Backup {name}", {part: f"{count:,}" for part, count in counts.items()})
    console.out.print("Next: try it on another machine with [bold]churn restore[/]")
    return 0


@command(
    "restore",
    "bring back what a backup has, into the stores of this profile",
    examples=(
        "churn restore --set backup.store=/mnt/backup/churn",
        "churn restore --profile production --name 2026-11-27T02-00-00-000000Z --replace",
    ),
    arguments=(
        argument("--name", help="of the backup; default: the newest"),
        argument("--replace", action="store_true", help="also where the workspace has files"),
    ),
)
def restore(settings: Settings, arguments: Namespace) -> int:
    from pipelines.backup.restore import restore as load

    with console.err.status("restoring") as shown, alone(settings.files):
        counts = load(context_of(settings, shown.update), arguments.name, arguments.replace)
    console.pairs("Restored", {part: f"{count:,}" for part, count in counts.items()})
    console.out.print("Next: [bold]churn doctor[/], then [bold]churn serve[/]")
    return 0
