"""A step of the loop by itself, and what every act is done with: settings, the present, who asked."""

import json
import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from churn import console
from churn.lock import alone
from churn.settings import Settings

if TYPE_CHECKING:
    from data.delivery import Delivery
    from pipelines.engine import Outcome


def run_step(
    settings: Settings,
    name: str,
    *,
    after: tuple[str, ...] = (),
    overrides: tuple[tuple[str, str], ...] = (),
) -> None:
    """One step of the loop, whether or not its inputs have changed: who names it wants it done.

    Those in `after`, which have no command of their own, are done before it if theirs have changed.
    """
    from pipelines.engine import run_steps
    from pipelines.steps import STEPS

    steps = {step.name: step for step in STEPS}
    with alone(settings.files), console.steps(1 + len(after)) as shown:
        context = context_of(settings, shown.say, overrides)
        for one, force in (*((one, False) for one in after), (name, True)):
            run_steps([steps[one]], context, force, lambda step: shown.start(step.title), reporter(shown))


def append_delivery(settings: Settings, uri: str) -> "Delivery":
    """Merge a delivery into the records. The step `ingest` then stands: `churn run` goes on from there."""
    from data.append import append
    from features.spec import columns_read
    from pipelines.engine import accept, is_done
    from pipelines.steps import STEPS

    step = next(step for step in STEPS if step.name == "ingest")
    read = columns_read(settings.features, settings.data.shape)
    with alone(settings.files), console.steps(1) as shown:
        context = context_of(settings, shown.say)
        was_done = is_done(step, context)
        delivery = append(settings.data, settings.files, uri, context.as_of, shown.say, read)
        if was_done:
            accept(step, context)
    return delivery


def context_of(settings: Settings, say: Any, overrides: tuple[tuple[str, str], ...] = ()) -> Any:
    from pipelines.context import Context

    def clock() -> datetime:
        return datetime.now(UTC)

    return Context(settings, clock(), say, who(), overrides, clock)


def reporter(shown: console.Steps) -> "Callable[[Outcome], None]":
    def tell(outcome: "Outcome") -> None:
        how = "[dim]unchanged[/]" if outcome.skipped else f"{outcome.seconds:.1f} s"
        shown.end(f"[green]✓[/] {outcome.step:<14}{how}")

    return tell


def who() -> str:
    """The user, as the decision log names people."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def identifiers(settings: Settings, texts: Sequence[str]) -> list[int | str]:
    """Identifiers of customers as they were typed, of the type that the records have."""
    id_type = read(settings.files.manifest)["id_type"]
    whole = re.compile(r"-?\d+")
    return [int(text) if id_type == "integer" and whole.fullmatch(text) else text for text in texts]
