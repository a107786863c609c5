"""The ledger of retraining as metrics for Prometheus."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from monitoring.families import counter, gauge
from rollout.database.ledger_counts import LedgerCounts

GRANTED, VETOED = "yes", "vetoed"
"""Actions of a decision, as retraining/decision.py writes them."""
RIGHT = "right"
HARM = ("performance", "early_labels")
"""Triggers that are findings of harm, which page."""
OUTCOMES = ("running", "rolled_out", "refused", "failed")
MODEL = ("model",)


def ledger_metrics(model: str, counts: LedgerCounts) -> Iterator[Metric]:
    """Decisions by answer, runs by outcome, grades, and how many pages about harm were right."""
    yield counter(
        "churn_retraining_decisions",
        "Decisions of the governor.",
        {(model, *key): n for key, n in counts.decisions.items()},
        ("model", "action", "trigger", "obstacle"),
    )
    yield gauge(
        "churn_retraining_runs",
        "Retrainings by outcome.",
        {(model, outcome): counts.runs.get(outcome, 0) for outcome in OUTCOMES},
        ("model", "outcome"),
    )
    yield counter(
        "churn_retraining_grades",
        "Decisions by the grade that they got once their labels had matured.",
        {(model, *key): n for key, n in counts.grades.items()},
        ("model", "action", "trigger", "grade"),
    )
    yield from _pages(model, counts)
    yield from _state(model, counts)


def _pages(model: str, counts: LedgerCounts) -> Iterator[Metric]:
    """A page about harm was right when the training that it asked for was worth its cost: the grade of a
    decision with the answer yes whose trigger was a finding of harm."""
    graded = {
        (trigger, grade): n for (action, trigger, grade), n in counts.grades.items() if action == GRANTED
    }
    all_graded = sum(n for (trigger, _), n in graded.items() if trigger in HARM)
    right = sum(n for (trigger, grade), n in graded.items() if trigger in HARM and grade == RIGHT)
    yield gauge("churn_monitor_pages_graded", "Pages about harm with a grade.", {(model,): all_graded}, MODEL)
    yield gauge("churn_monitor_pages_right", "Of these, those that were right.", {(model,): right}, MODEL)


def _state(model: str, counts: LedgerCounts) -> Iterator[Metric]:
    values = {
        "failures_in_a_row": ("Retrainings that failed since one did not.", counts.failures_in_a_row),
        "vetoed": ("1: the newest decision is a veto, because data are wrong.", counts.action == VETOED),
    }
    for name, (text, value) in values.items():
        yield gauge(f"churn_retraining_{name}", text, {(model,): value}, MODEL)
    times = {
        "last_decision": ("When the newest decision was made.", counts.decided),
        "last_success": ("When the newest retraining ended that did not fail.", counts.succeeded),
        "running_since": ("When the retraining began that has not ended.", counts.running_since),
    }
    for name, (text, at) in times.items():
        if at is not None:
            yield gauge(f"churn_retraining_{name}_timestamp_seconds", text, {(model,): at.timestamp()}, MODEL)
