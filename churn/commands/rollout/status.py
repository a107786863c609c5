"""`churn rollout status` and `watch`: the newest rollout, once or until it has ended."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from churn import console
from churn.command import JSON, command
from churn.commands.rollout.controlled import (
    NEEDS_A_PERSON,
    RUNNING,
    TAKEN_BACK,
    is_controlled,
    open_store,
)

if TYPE_CHECKING:
    from churn.settings import Settings
    from rollout.state import Rollout
    from rollout.store import Store

POLL_S = 0.5


@command(
    "rollout status",
    "how far it is and what it waits for; exit code 0 promoted, 3 taken back, 4 running, 5 needs a person"
    " (paused, stuck, or no controller runs)",
    examples=("churn rollout status", "churn rollout status --json"),
    arguments=(JSON,),
)
def status(settings: Settings, arguments: Namespace) -> int:
    from churn.commands.rollout.picture import picture

    store = open_store(settings)
    rollout = store.newest(settings.serving.model_name)
    if rollout is None:
        if arguments.json:
            console.out.print_json(json.dumps({"phase": None}))
        else:
            console.out.print("There has been no rollout.")
        return 0
    record = _record(store, rollout)
    if arguments.json:
        console.out.print_json(json.dumps(record))
    else:
        console.out.print(picture(record))
        if not rollout.over:
            is_controlled(settings, store, rollout)
    return _exit_code(record)


@command(
    "rollout watch",
    "the same, live, until it has ended; with --json a line each time something changes",
    examples=("churn rollout watch", "churn rollout watch --json"),
    arguments=(JSON,),
)
def watch(settings: Settings, arguments: Namespace) -> int:
    """Ctrl-C ends the command, not the rollout."""
    store = open_store(settings)
    rollout = store.newest(settings.serving.model_name)
    if rollout is None:
        console.out.print("There has been no rollout.")
        return 0
    records = _records(store, rollout)
    return _exit_code(_print_changes(records) if arguments.json else _draw(records))


def _print_changes(records: Iterator[dict[str, Any]]) -> dict[str, Any]:
    shown = None
    for record in records:
        if record != shown:
            print(json.dumps(record), flush=True)  # noqa: T201  # one line per change
        shown = record
    assert shown is not None
    return shown


def _draw(records: Iterator[dict[str, Any]]) -> dict[str, Any]:
    from rich.live import Live

    from churn.commands.rollout.picture import picture

    record = next(records)
    with Live(picture(record), console=console.out, refresh_per_second=4) as live:
        for record in records:
            live.update(picture(record))
    return record


def _records(store: Store, rollout: Rollout) -> Iterator[dict[str, Any]]:
    """The record of the rollout, read again every POLL_S, until and including that of its end."""
    yield _record(store, rollout)
    while not rollout.over:
        time.sleep(POLL_S)
        rollout = store.load(rollout.id)
        yield _record(store, rollout)


def _record(store: Store, rollout: Rollout) -> dict[str, Any]:
    """The rollout for machines, with its controller, its newest observation (None before the first), and
    whether registry and target agree with what is recorded as stable."""
    from rollout.records import rollout_record

    lease = store.controller(rollout.model, datetime.now(UTC))
    observation = store.observation(rollout.id)
    projections = [] if not rollout.over else store.projections(rollout.model)
    return rollout_record(rollout) | {
        "controller": None if lease is None else lease.holder,
        "look": None if observation is None else dict(observation),
        "projections": [
            {
                "name": projection.name,
                "agrees": projection.agrees,
                "detail": projection.detail,
                "since": projection.since.isoformat(),
            }
            for projection in projections
        ],
    }


def _exit_code(record: dict[str, Any]) -> int:
    if not all(projection["agrees"] for projection in record["projections"]):
        return NEEDS_A_PERSON
    if record["phase"] in ("rolled_back", "aborted"):
        return TAKEN_BACK
    if record["phase"] == "promoted":
        return 0
    needs_a_person = record["paused"] or record["stuck"] or record["controller"] is None
    return NEEDS_A_PERSON if needs_a_person else RUNNING
