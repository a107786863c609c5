"""`churn config show`: prints the settings."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from churn import console
from churn.command import command

if TYPE_CHECKING:
    from churn.settings import Settings


@command(
    "config show",
    "print the settings that would be used, or why they are refused",
    examples=("churn config show", "churn config show --profile production --set training.epochs=10"),
)
def show(settings: Settings, arguments: Namespace) -> int:
    from core.addresses import masked

    console.out.print_json(masked(settings.model_dump_json()))
    return 0
