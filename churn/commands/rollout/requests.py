"""`churn rollout pause`, `resume`, `promote`, `abort` and `churn rollback`: requests to the controller.

A request is recorded in the database; the controller executes it, in whichever process it runs. A command
whose request no process executes ends with an exit code that is not 0.
"""

from __future__ import annotations

import time
from argparse import Namespace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from churn import console
from churn.command import REASON, argument, command
from churn.commands.rollout.controlled import NEEDS_A_PERSON, is_controlled, open_store
from churn.commands.step import who

if TYPE_CHECKING:
    from churn.settings import Settings
    from rollout.state import Event, Request, RequestKind, Rollout
    from rollout.store import Store
    from rollout.targets.target import Candidate

POLL_S = 0.5
ANSWER_WITHIN_S = 30.0


@command(
    "rollout pause",
    "stay at this weight; harm is still taken back",
    examples=('churn rollout pause --reason "call centre is closed"',),
    arguments=(REASON,),
)
def pause(settings: Settings, arguments: Namespace) -> int:
    return _request(settings, "pause", arguments.reason)


@command(
    "rollout resume",
    "go on where it was paused",
    examples=("churn rollout resume",),
    arguments=(argument("--reason", default="", help="why; recorded with your name"),),
)
def resume(settings: Settings, arguments: Namespace) -> int:
    return _request(settings, "resume", arguments.reason)


@command(
    "rollout promote",
    "skip the stages that are left; your name and reason are recorded",
    examples=('churn rollout promote --reason "it fixes the outage"',),
    arguments=(REASON,),
)
def promote(settings: Settings, arguments: Namespace) -> int:
    return _request(settings, "promote", arguments.reason)


@command(
    "rollout abort",
    "all customers back to stable, before any other pending request; on a cluster this process does it"
    " where no controller runs",
    examples=('churn rollout abort --reason "calls rose"',),
    arguments=(REASON,),
)
def abort(settings: Settings, arguments: Namespace) -> int:
    return _request(settings, "abort", arguments.reason)


@command(
    "rollback",
    "bring back what was stable before, on live traffic and in the registry",
    examples=('churn rollback --reason "calls rose"',),
    arguments=(REASON,),
)
def rollback(settings: Settings, arguments: Namespace) -> int:
    """Abort the running rollout. If none runs, reopen the last one that promoted, to restore its previous."""
    from rollout.errors import RolloutError

    store, model = open_store(settings), settings.serving.model_name
    if store.current(model) is not None:
        return _request(settings, "abort", arguments.reason)
    promoted = store.reversible(model)
    if promoted is None:
        raise RolloutError(
            "rollback: no rollout has promoted anything that could be taken back;"
            " `churn registry rollback` moves the registry's aliases alone"
        )
    if promoted.previous is not None:
        _refuse_without_features(settings, promoted.previous)
    rollout = store.reopen(promoted, who(), arguments.reason, datetime.now(UTC))
    return _wait_for_the_end(settings, store, rollout)


def _refuse_without_features(settings: Settings, before: Candidate) -> None:
    """Raise ArchiveError if the features of the archive that would serve again were pruned. An archive that
    is not found is left to the servers, which refuse to load it without its features."""
    from core.errors import ArchiveError, TrainingError
    from pipelines.archives import archive_with
    from pipelines.candidates import refuse_offline

    try:
        checked = archive_with(settings, before.sha256, before.archive)
    except (ArchiveError, TrainingError):
        return
    refuse_offline(settings, checked)


def _request(settings: Settings, what: RequestKind, reason: str) -> int:
    """Record the request, wait until it is answered, and print the answer. Return the exit code."""
    from rollout.errors import RolloutError

    store = open_store(settings)
    rollout = store.current(settings.serving.model_name)
    if rollout is None:
        raise RolloutError(
            f"rollout {what}: none runs; see `churn rollout status`, or begin with `churn deploy`"
        )
    request = store.request(rollout.id, what, who(), reason, datetime.now(UTC))
    can_execute = what == "abort" and settings.rollout.target != "envoy"
    if not is_controlled(settings, store, rollout, silent=can_execute):
        return _wait_for_the_end(settings, store, rollout) if can_execute else NEEDS_A_PERSON
    event = _answer(store, rollout, request)
    if event.action == "refuse":
        raise RolloutError(f"rollout {event.reason}")
    if event.action in ("end", "finish") and what != "abort":
        raise RolloutError(f"rollout {what}: the rollout had ended before: {event.reason}")
    console.out.print(f"{event.action.replace('_', ' ')}: {event.reason}", markup=False)
    return _wait_for_the_end(settings, store, store.load(rollout.id)) if what == "abort" else 0


def _answer(store: Store, rollout: Rollout, request: Request) -> Event:
    """The event with which the controller answers. Raises RolloutError after ANSWER_WITHIN_S."""
    from rollout.errors import RolloutError

    deadline = time.monotonic() + ANSWER_WITHIN_S
    while (number := store.answer(request)) is None:
        if time.monotonic() > deadline:
            raise RolloutError(
                f"rollout {request.what}: recorded, but not answered within {ANSWER_WITHIN_S:g} s; `churn"
                " rollout status` shows what the controller waits for"
            )
        time.sleep(0.1)
    return store.history(rollout.id)[number - 1]


def _wait_for_the_end(settings: Settings, store: Store, rollout: Rollout) -> int:
    """Wait until stable serves all customers. On a cluster without a controller, move the traffic here."""
    from pipelines.rollout import control_here
    from rollout.errors import RolloutError

    on_this_machine = settings.rollout.target == "envoy"
    if not rollout.over and on_this_machine and not is_controlled(settings, store, rollout):
        return NEEDS_A_PERSON
    timeout_s = 2 * settings.rollout.ready_timeout_s
    with console.err.status("moving traffic back"):
        deadline = time.monotonic() + timeout_s
        if store.controller(rollout.model, datetime.now(UTC)) is None and not on_this_machine:
            control_here(settings, rollout, lambda: time.monotonic() > deadline)
        while not (rollout := store.load(rollout.id)).over:
            if time.monotonic() > deadline:
                raise RolloutError(f"not done within {timeout_s:g} s; see `churn rollout status`")
            time.sleep(POLL_S)
    serves = rollout.candidate if rollout.phase == "promoted" else rollout.previous
    version = "what was stable before" if serves is None else f"version {serves.version}"
    console.out.print(
        f"{rollout.phase.replace('_', ' ')}; customers are answered by {version}.", markup=False
    )
    return 0 if rollout.phase != "promoted" else 1
