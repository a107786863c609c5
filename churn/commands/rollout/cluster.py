"""`churn rollout run`, `adopt` and `restore`: the rollouts of a cluster, and what it serves."""

from __future__ import annotations

import signal
import threading
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from churn import console
from churn.command import REASON, argument, command
from churn.commands.rollout.controlled import open_store
from churn.commands.step import context_of

if TYPE_CHECKING:
    from churn.settings import Settings


@command(
    "rollout run",
    "control the rollouts of a cluster from this process; on one machine churn serve does",
    examples=("churn rollout run --set rollout.target=knative",),
)
def run(settings: Settings, arguments: Namespace) -> int:
    from pipelines.rollout import control

    over = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: over.set()) for number in signals}
    try:
        console.err.print(f"controlling rollouts of {settings.serving.model_name} until interrupted (Ctrl-C)")
        control(settings, over, lambda message: console.err.print(message, soft_wrap=True))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


@command(
    "rollout adopt",
    "record what a cluster serves now as stable, after it was changed by hand",
    examples=(
        'churn rollout adopt --reason "restored from a backup"',
        'churn rollout adopt --archive churn-0123456789ab.mar --reason "deployed before rollouts"',
    ),
    arguments=(
        argument(
            "--archive",
            type=Path,
            metavar="FILE",
            help="a copy of what is served, where it was not deployed by a rollout and cannot be read back",
        ),
        REASON,
    ),
)
def adopt(settings: Settings, arguments: Namespace) -> int:
    from pipelines.adopt import adopted
    from pipelines.rollout import open_target

    store, target = open_store(settings), open_target(settings.rollout)
    with console.err.status("reading the state of the cluster") as shown:
        context = context_of(settings, shown.update)
        stable = adopted(context, store, target, arguments.reason, arguments.archive)
    console.out.print(f"Version {stable.version} is recorded as stable: {stable.archive}", soft_wrap=True)
    return 0


@command(
    "rollout restore",
    "bring what is recorded as stable back to a cluster that serves something else",
    examples=("churn rollout restore",),
)
def restore(settings: Settings, arguments: Namespace) -> int:
    from pipelines.rollout import open_target
    from rollout.errors import RolloutError

    store, target = open_store(settings), open_target(settings.rollout)
    if (running := store.current(settings.serving.model_name)) is not None:
        raise RolloutError(f"rollout {running.id} is running; its controller keeps the target as recorded")
    stable = store.stable(settings.serving.model_name)
    if stable is None:
        raise RolloutError("rollout restore: nothing is recorded as stable; see `churn rollout adopt`")
    with console.err.status("moving traffic back"):
        target.restore(stable)
    console.out.print(f"The target serves version {stable.version} again.")
    return 0
