"""`churn rollout ...` and `churn rollback`: how a candidate does on live traffic, and what people want of it.

All of them write to and read from the database; the controller answers in whichever process it runs. A
command whose request no process carries out ends with an exit code that is not 0.
"""

import json
import signal
import threading
import time
from argparse import Namespace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.live import Live

from churn import console
from churn.commands.rollout_shown import history_rows, picture, projection_record, status_record
from churn.commands.step import context_of, who
from churn.lock import alone
from churn.settings import Settings
from core.errors import ChurnError

if TYPE_CHECKING:
    from rollout.state import RequestKind, Rollout
    from rollout.store import Store

POLL_S = 0.5
STOPS = (signal.SIGINT, signal.SIGTERM)
ANSWER_WITHIN_S = 30.0
TAKEN_WITHIN_S = 1.0
"""Beyond its tick: a controller that waits for something to do sees a new rollout so soon."""
TAKEN_BACK, RUNNING, NEEDS_A_PERSON = 3, 4, 5
"""Exit codes of `status` and `watch`; 0: promoted, or there has been no rollout at all. NEEDS_A_PERSON is
that of every command which is recorded and not carried out, because no controller runs."""


def start(settings: Settings, arguments: Namespace) -> int:
    from pipelines.deploy import deploy
    from pipelines.rollout import start as begin

    with console.err.status("checking") as shown, alone(settings.files):
        context = context_of(settings, shown.update)
        done = deploy(context, arguments.archive, arguments.report)
        rollout = begin(context, done.candidate, arguments.reason)
    console.out.print(f"Rollout {rollout.id} of version {rollout.candidate.version} has begun.")
    return begun(settings, rollout)


def begun(settings: Settings, rollout: "Rollout") -> int:
    """What `churn rollout start` and `churn deploy` end with."""
    if _uncontrolled(settings, _store(settings), rollout):
        return NEEDS_A_PERSON
    console.out.print("Next: [bold]churn rollout watch[/]")
    return 0


def status(settings: Settings, arguments: Namespace) -> int:

    store = _store(settings)
    rollout = store.newest(settings.serving.model_name)
    if rollout is None:
        _show_json({"phase": None}) if arguments.json else console.out.print("There has been no rollout.")
        return 0
    record = _status(store, rollout)
    if arguments.json:
        _show_json(record)
    else:
        console.out.print(picture(record))
        if not rollout.over:
            _uncontrolled(settings, store, rollout)
    return _code(record)


def watch(settings: Settings, arguments: Namespace) -> int:
    """Show the rollout until it has ended, or until Ctrl-C, which does not stop the rollout."""

    store = _store(settings)
    rollout = store.newest(settings.serving.model_name)
    if rollout is None:
        console.out.print("There has been no rollout.")
        return 0
    record = _status(store, rollout)
    if arguments.json:
        shown = None
        while True:
            if record != shown:
                print(json.dumps(record), flush=True)  # noqa: T201  # a line a change, for machines
            if rollout.over:
                return _code(record)
            shown = record
            time.sleep(POLL_S)
            rollout = store.load(rollout.id)
            record = _status(store, rollout)
    with Live(picture(record), console=console.out, refresh_per_second=4) as live:
        while not rollout.over:
            time.sleep(POLL_S)
            rollout = store.load(rollout.id)
            record = _status(store, rollout)
            live.update(picture(record))
    return _code(record)


def history(settings: Settings, arguments: Namespace) -> int:

    from rollout.records import event_record, rollout_record

    store, model = _store(settings), settings.serving.model_name
    if arguments.all:
        rollouts = store.all(model)
        if arguments.json:
            _show_json([rollout_record(rollout) for rollout in rollouts])
            return 0
        rows = [(r.id, r.candidate.version, r.phase.replace("_", " "), r.by, r.outcome) for r in rollouts]
        console.table("Rollouts", ("id", "version", "phase", "by", "outcome"), rows)
        return 0
    rollout = store.load(arguments.id) if arguments.id else store.newest(model)
    events = [] if rollout is None else store.history(rollout.id)
    if arguments.json:
        known = None if rollout is None else rollout_record(rollout)
        _show_json({"rollout": known, "events": [event_record(event) for event in events]})
        return 0
    title = "Rollouts" if rollout is None else f"Rollout {rollout.id}"
    console.table(title, ("#", "when", "action", "canary", "who", "why", ""), history_rows(events))
    return 0


def pause(settings: Settings, arguments: Namespace) -> int:
    return _ask(settings, "pause", arguments.reason)


def resume(settings: Settings, arguments: Namespace) -> int:
    return _ask(settings, "resume", arguments.reason)


def promote(settings: Settings, arguments: Namespace) -> int:
    return _ask(settings, "promote", arguments.reason)


def abort(settings: Settings, arguments: Namespace) -> int:
    return _ask(settings, "abort", arguments.reason)


def rollback(settings: Settings, arguments: Namespace) -> int:
    """The running rollout is aborted; after one that promoted, what was stable before comes back."""

    store, model = _store(settings), settings.serving.model_name
    if store.current(model) is not None:
        return _ask(settings, "abort", arguments.reason)
    promoted = store.reversible(model)
    if promoted is None:
        raise _nothing_to_roll_back()
    rollout = store.reopen(promoted, who(), arguments.reason, datetime.now(UTC))
    return _wait_for_the_end(settings, store, rollout)


def adopt(settings: Settings, arguments: Namespace) -> int:
    """Record what the cluster serves now as stable."""
    from pipelines.adopt import adopted
    from pipelines.rollout import open_target

    store, target = _store(settings), open_target(settings.rollout)
    with console.err.status("looking at the cluster") as shown:
        context = context_of(settings, shown.update)
        stable = adopted(context, store, target, arguments.reason, arguments.archive)
    console.out.print(f"Version {stable.version} is recorded as stable: {stable.archive}", soft_wrap=True)
    return 0


def restore(settings: Settings, arguments: Namespace) -> int:
    """Bring what is recorded as stable back to the cluster."""
    from pipelines.rollout import open_target
    from rollout.errors import RolloutError

    store, target = _store(settings), open_target(settings.rollout)
    if (running := store.current(settings.serving.model_name)) is not None:
        raise RolloutError(f"rollout {running.id} is running; its controller keeps the target as recorded")
    stable = store.stable(settings.serving.model_name)
    if stable is None:
        raise RolloutError("rollout restore: nothing is recorded as stable; see `churn rollout adopt`")
    with console.err.status("moving traffic back"):
        target.restore(stable)
    console.out.print(f"The target serves version {stable.version} again.")
    return 0


def run(settings: Settings, arguments: Namespace) -> int:
    """Control the rollouts of a cluster from this process."""
    from pipelines.rollout import control

    over = threading.Event()
    before = {number: signal.signal(number, lambda *_: over.set()) for number in STOPS}
    try:
        console.err.print(f"controlling rollouts of {settings.serving.model_name} until interrupted (Ctrl-C)")
        control(settings, over, lambda said: console.err.print(said, soft_wrap=True))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _store(settings: Settings) -> "Store":
    from rollout.store import Store

    return Store(settings.rollout.database, settings.rollout.lease_s)


def _ask(settings: Settings, what: "RequestKind", reason: str) -> int:
    from rollout.errors import RolloutError

    store, model = _store(settings), settings.serving.model_name
    rollout = store.current(model)
    if rollout is None:
        raise RolloutError(
            f"rollout {what}: none runs; see `churn rollout status`, or begin with `churn deploy`"
        )
    request = store.request(rollout.id, what, who(), reason, datetime.now(UTC))
    if _uncontrolled(settings, store, rollout, silent=_can_control(settings, what)):
        if not _can_control(settings, what):
            return NEEDS_A_PERSON
        return _wait_for_the_end(settings, store, rollout)
    deadline = time.monotonic() + ANSWER_WITHIN_S
    while (number := store.answer(request)) is None:
        if time.monotonic() > deadline:
            raise RolloutError(
                f"rollout {what}: written, but not answered within {ANSWER_WITHIN_S:g} s; what the controller"
                " waits for: `churn rollout status`"
            )
        time.sleep(0.1)
    event = store.history(rollout.id)[number - 1]
    if event.action == "refuse":
        raise RolloutError(f"rollout {event.reason}")
    if event.action in ("end", "finish") and what != "abort":
        raise RolloutError(f"rollout {what}: it has ended before: {event.reason}")
    console.out.print(f"{event.action.replace('_', ' ')}: {event.reason}", markup=False)
    if what != "abort":
        return 0
    return _wait_for_the_end(settings, store, store.load(rollout.id))


def _wait_for_the_end(settings: Settings, store: "Store", rollout: "Rollout") -> int:
    from pipelines.rollout import control_here
    from rollout.errors import RolloutError

    on_this_machine = settings.rollout.target == "envoy"
    if not rollout.over and on_this_machine and _uncontrolled(settings, store, rollout):
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


def _can_control(settings: Settings, what: "RequestKind") -> bool:
    """Whether this process can carry out the request itself, as it can for an abort on a cluster."""
    return what == "abort" and settings.rollout.target != "envoy"


def _uncontrolled(settings: Settings, store: "Store", rollout: "Rollout", silent: bool = False) -> bool:
    """Whether no process controls the rollout; then a message states that and the remedy."""
    from pipelines.rollout import how_to_control

    model, deadline = settings.serving.model_name, time.monotonic() + settings.rollout.tick_s + TAKEN_WITHIN_S
    while time.monotonic() < deadline:
        controlled = store.controller(model, datetime.now(UTC)) is not None or _serving(settings)
        if controlled or store.load(rollout.id).sequence > rollout.sequence:
            return False
        time.sleep(0.1)
    if silent:
        return True
    command = how_to_control(settings.rollout)
    console.err.print(
        f"No controller runs: it is written, and done as soon as one does. Start one: [bold]{command}[/]",
        soft_wrap=True,
    )
    return True


def _serving(settings: Settings) -> bool:
    """Whether a server of this workspace runs, whose controller will look at the database in a moment."""
    if settings.rollout.target != "envoy":
        return False
    from serving.client import running

    try:
        return "gateway" in running(settings.files)
    except ChurnError:
        return False


def _nothing_to_roll_back() -> ChurnError:
    from rollout.errors import RolloutError

    return RolloutError(
        "rollback: no rollout has promoted anything that could be taken back;"
        " `churn registry rollback` moves the registry's aliases alone"
    )


def _status(store: "Store", rollout: "Rollout") -> dict[str, Any]:
    held = store.controller(rollout.model, datetime.now(UTC))
    record = status_record(rollout, store.observation(rollout.id), None if held is None else held.holder)
    projections = [] if not rollout.over else store.projections(rollout.model)
    return record | {"projections": [projection_record(projection) for projection in projections]}


def _code(record: dict[str, Any]) -> int:
    if not all(projection["agrees"] for projection in record["projections"]):
        return NEEDS_A_PERSON
    if record["phase"] in ("rolled_back", "aborted"):
        return TAKEN_BACK
    if record["phase"] == "promoted":
        return 0
    waits = record["paused"] or record["stuck"] or record["controller"] is None
    return NEEDS_A_PERSON if waits else RUNNING


def _show_json(content: Any) -> None:
    console.out.print_json(json.dumps(content))
