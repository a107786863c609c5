"""Whether a process controls the rollouts; without one, a request is recorded and not executed."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from churn import console
from core.errors import ChurnError

if TYPE_CHECKING:
    from churn.settings import Settings
    from rollout.state import Rollout
    from rollout.store import Store

TAKEN_BACK, RUNNING, NEEDS_A_PERSON = 3, 4, 5
"""Exit codes. Of `status` and `watch`, with 0: promoted, or there has been no rollout. Each command that is
recorded but not executed, because no controller runs, ends with NEEDS_A_PERSON."""
TAKEN_WITHIN_S = 5.0
"""In addition to its tick: an idle controller finds a new rollout within this time."""


def open_store(settings: Settings) -> Store:
    """The same as in pipelines/rollout.py, without the seconds that it takes to import the targets."""
    from rollout.store import Store

    return Store(settings.rollout.database, settings.rollout.lease_s)


def show_begun(settings: Settings, rollout: Rollout) -> int:
    """Print the next step after the start of a rollout. Return the exit code of the command."""
    if not is_controlled(settings, open_store(settings), rollout):
        return NEEDS_A_PERSON
    console.out.print("Next: [bold]churn rollout watch[/]")
    return 0


def is_controlled(settings: Settings, store: Store, rollout: Rollout, silent: bool = False) -> bool:
    """Whether a process controls the rollout. If not, print how to start one, unless `silent`."""
    deadline = time.monotonic() + settings.rollout.tick_s + TAKEN_WITHIN_S
    while time.monotonic() < deadline:
        if store.controller(rollout.model, datetime.now(UTC)) is not None or _is_server_running(settings):
            return True
        if store.load(rollout.id).sequence > rollout.sequence:
            return True
        time.sleep(0.1)
    if not silent:
        from pipelines.rollout import how_to_control

        console.err.print(
            "No controller runs: the request is recorded, and executed as soon as one runs. Start one:"
            f" [bold]{how_to_control(settings.rollout)}[/]",
            soft_wrap=True,
        )
    return False


def _is_server_running(settings: Settings) -> bool:
    """Whether a server of this workspace runs, whose controller will read the database in a moment."""
    if settings.rollout.target != "envoy":
        return False
    from serving.client import running

    try:
        return "gateway" in running(settings.files)
    except ChurnError:
        return False
