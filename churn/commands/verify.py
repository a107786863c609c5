"""`churn verify`: checks an archive before it is installed."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from churn import console
from churn.command import argument, command

if TYPE_CHECKING:
    from churn.settings import Settings


@command(
    "verify",
    "check an archive's signature, its parts and its gates; exit code 2 or 3 when it is not to be used",
    examples=("churn verify var/model-store/churn-0123456789ab.mar",),
    arguments=(
        argument("file", type=Path, metavar="FILE", help="a .mar with its .sig beside it"),
        argument("--sha256", metavar="DIGEST", help="refuse any other archive than this one"),
    ),
)
def verify(settings: Settings, arguments: Namespace) -> int:
    from pipelines.verified import verified

    checks = verified(settings, arguments.file, arguments.sha256).checks
    console.table(f"Checks of {arguments.file.name}", ("check", "found"), checks)
    return 0
