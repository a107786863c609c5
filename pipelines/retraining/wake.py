"""What a wake-up does: it reads the database, decides, and carries out a run that was granted.

A wake-up has no content. Whatever caused it, and however often, the answer follows from the database alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from pipelines.context import Context
from pipelines.retraining.evidence import read_evidence
from pipelines.retraining.runner import Done, carry_out
from retraining.decision import Decision, PersonRequest
from retraining.governor import decide
from retraining.ledger import Entry, Ledger
from rollout.errors import LeaseHeld


@dataclass(frozen=True)
class Woken:
    """What a wake-up led to."""

    entry: Entry
    done: Done | None = None
    """How the run ended that it began or continued; None: there was none to run here."""
    held: str = ""
    """Which process runs a retraining already."""


def open_ledger(context: Context) -> Ledger:
    """The ledger in `rollout.database`. Raises RolloutError when it cannot be reached."""
    return Ledger(context.settings.rollout.database)


def would_decide(context: Context, request: tuple[str, str, bool] | None = None) -> Decision:
    """What a wake-up now would decide, with a `request` of a person: who, why, and whether a veto is
    overridden. Nothing is written."""
    state, evidence = read_evidence(context.settings, open_ledger(context), context.as_of)
    if request is not None:
        who, reason, override = request
        evidence = replace(evidence, request=PersonRequest(0, context.as_of, who, reason, override))
    return decide(context.settings.retrain, state, evidence, context.as_of)


def wake(context: Context, woken_by: str, started: Callable[[str], None] = lambda title: None) -> Woken:
    """Decides, then begins the run that was granted, or continues one that has stopped.

    Raises Overtaken where another process takes the run over, and the ChurnError of a step that fails.
    """
    ledger = open_ledger(context)
    state, evidence = read_evidence(context.settings, ledger, context.as_of)
    entry = ledger.decide(context.settings.retrain, state, evidence, context.as_of, woken_by)
    run = ledger.active(evidence.model)
    if run is None:
        return Woken(entry)
    try:
        return Woken(entry, carry_out(context, ledger, run, started))
    except LeaseHeld as held:
        return Woken(entry, held=str(held))


def resume(context: Context, started: Callable[[str], None] = lambda title: None) -> Done | None:
    """Continues the run that has not ended; None: there is none. Raises LeaseHeld while a process runs it."""
    ledger = open_ledger(context)
    run = ledger.active(context.settings.serving.model_name)
    return None if run is None else carry_out(context, ledger, run, started)
