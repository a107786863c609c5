"""`churn reproduce`: a registered version, trained again."""

from __future__ import annotations

import json
import tempfile
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from churn import console
from churn.command import JSON, argument, command
from churn.commands.step import context_of
from churn.lock import alone

if TYPE_CHECKING:
    from churn.settings import Settings
    from pipelines.reproduce.reproduce import Reproduction


@command(
    "reproduce",
    "train a registered version again from the data and settings of its run, and compare the programs;"
    " exit code 1 when they differ",
    examples=(
        "churn reproduce 1",
        "churn reproduce champion --keep",
        "churn reproduce 22aaaee44012 --json",
    ),
    arguments=(
        argument("version", metavar="VERSION", help="a number, an alias, or the version of an archive"),
        argument(
            "--keep", action="store_true", help="leave the files of the training in WORKSPACE/reproduced"
        ),
        JSON,
    ),
)
def reproduce(settings: Settings, arguments: Namespace) -> int:
    from pipelines.reproduce.recorded import find_version, read_recorded
    from pipelines.reproduce.reproduce import remove, workspace_of
    from pipelines.reproduce.reproduce import reproduce as train_again
    from training.registry.model_registry import Registry

    version = find_version(Registry(settings.training), arguments.version)
    with alone(workspace_of(settings.files, version.number)), console.steps(1) as shown:
        shown.start(f"Train version {version.number} again")
        try:
            with tempfile.TemporaryDirectory() as scratch:
                recorded = read_recorded(version, settings.training, settings.features, Path(scratch))
            found = train_again(context_of(settings, shown.describe), recorded)
        finally:
            if not arguments.keep:
                remove(settings, version.number)
    _show(found, arguments.json)
    return 0 if found.holds else 1


def _show(found: Reproduction, as_json: bool) -> None:
    if as_json:
        console.out.print_json(json.dumps(asdict(found) | {"holds": found.holds}))
        return
    console.out.print(f"version {found.number}, data {found.data_sha256[:12]}, {found.rows:,} training rows")
    console.out.print(f"program then {found.expected}\nprogram now  {found.found}", soft_wrap=True)
    for difference in found.differences:
        console.out.print(f"not as it was: {console.escape(difference)}", soft_wrap=True)
    if found.holds:
        console.out.print("[green]✓[/] both programs are equal to the bit")
    else:
        remedy = "with the code and packages of the run" if found.differences else "on the machine of the run"
        console.out.print(f"[bold red]✗[/] the programs differ; repeat the command {remedy}")
