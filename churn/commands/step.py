"""Runs one step of the loop for a command, with the context that all steps need."""

import json
import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from churn import console
from churn.lock import alone
from core.errors import DataError

if TYPE_CHECKING:
    from churn.settings import Settings
    from data.delivery import Delivery
    from pipelines.context import Context
    from pipelines.engine import Outcome


def run_step(
    settings: "Settings",
    name: str,
    *,
    after: tuple[str, ...] = (),
    overrides: tuple[tuple[str, str], ...] = (),
) -> None:
    """Run one step of the loop, even if its inputs have not changed.

    The steps in `after` precede it, each only if its inputs have changed. `overrides`: gates and reasons.
    """
    from pipelines.engine import run_steps
    from pipelines.steps import STEPS

    steps = {step.name: step for step in STEPS}
    with alone(settings.files), console.steps(1 + len(after)) as shown:
        context = context_of(settings, shown.describe, overrides)
        for one, force in (*((one, False) for one in after), (name, True)):
            run_steps([steps[one]], context, force, lambda step: shown.start(step.title), reporter(shown))


def append_delivery(settings: "Settings", uri: str) -> "Delivery":
    """Merge a delivery into the records. The step `ingest` then counts as done, so that `churn run` continues
    with the features."""
    from data.append import append
    from data.records.remote import publish
    from pipelines.engine import accept, is_done
    from pipelines.steps import STEPS
    from pipelines.steps.depends import columns_read

    step = next(step for step in STEPS if step.name == "ingest")
    with alone(settings.files), console.steps(1) as shown:
        context = context_of(settings, shown.describe)
        read = columns_read(context)
        was_done = is_done(step, context)
        delivery = append(settings.data, settings.files, uri, context.as_of, shown.describe, read)
        publish(settings.data, settings.files, shown.describe)
        if was_done:
            accept(step, context)
    return delivery


def context_of(
    settings: "Settings", report: Callable[[str], Any], overrides: tuple[tuple[str, str], ...] = ()
) -> "Context":
    """The context of a step now, by the present user. `report` shows its progress."""
    from pipelines.context import Context

    def clock() -> datetime:
        return datetime.now(UTC)

    return Context(settings, clock(), report, who(), overrides, clock)


def reporter(shown: console.Steps) -> "Callable[[Outcome], None]":
    def report(outcome: "Outcome") -> None:
        how = "[dim]unchanged[/]" if outcome.skipped else f"{outcome.seconds:.1f} s"
        shown.end(f"[green]✓[/] {outcome.step:<14}{how}")

    return report


def who() -> str:
    """The name of the user, for the log of decisions."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, a user may have no name
        return f"uid {os.getuid()}"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def identifiers(settings: "Settings", texts: Sequence[str]) -> list[int | str]:
    """Identifiers of customers from the command line, in the type of the records.

    Raises DataError if there are no records.
    """
    try:
        id_type = read(settings.files.manifest)["id_type"]
    except FileNotFoundError:
        raise DataError(f"{settings.files.manifest}: no records yet; run `churn ingest` first") from None
    whole = re.compile(r"-?\d+")
    return [int(text) if id_type == "integer" and whole.fullmatch(text) else text for text in texts]
