"""Evidence and states for tests of the governor."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from monitoring.findings import Cause, Finding, Severity
from retraining.decision import Aged, Attempt, Evidence, Labels, Outcome, PersonRequest, State, Window

START = datetime(2026, 1, 1, tzinfo=UTC)
VERSION = "0123456789ab"


def day(days: float) -> datetime:
    return START + timedelta(days=days)


def finding(
    cause: Cause, check: str = "a_check", severity: Severity = Severity.TICKET, **more: str
) -> Finding:
    return Finding(check, more.pop("subject", "all"), cause, severity, f"{check} found something.", **more)


HARM = finding(Cause.HARM, "avoidable_loss", Severity.PAGE)
EARLY_HARM = finding(Cause.HARM, "early_avoidable_loss", Severity.PAGE)
DRIFT = finding(Cause.DRIFT, "psi", subject="spend_90d")
CORRUPT = finding(Cause.CORRUPTION, "unit_change", Severity.PAGE, subject="amount")


def window(at: float, *findings: Finding, version: str = VERSION, every: float = 7) -> Window:
    return Window(day(at), day(at - every), version, findings)


def evidence(
    *windows: Window,
    matured: int = 5000,
    new: int = 500,
    request: PersonRequest | None = None,
    customers: int = 0,
    ageing: Sequence[Aged] = (),
) -> Evidence:
    return Evidence("churn", windows, Labels(matured, new, customers=customers), request, ageing)


def state(*attempts: Attempt, trained: float | None = 0, version: str = VERSION, rollout: str = "") -> State:
    return State(version, None if trained is None else day(trained), attempts, rollout)


def attempt(
    started: float,
    ended: float | None = None,
    outcome: Outcome = Outcome.ROLLED_OUT,
    evidence_at: float | None = None,
) -> Attempt:
    return Attempt(
        f"run{started:g}",
        day(started),
        None if ended is None else day(ended),
        outcome,
        None if evidence_at is None else day(evidence_at),
    )


def request(at: float, override_veto: bool = False, number: int = 1) -> PersonRequest:
    return PersonRequest(number, day(at), "ada", "a new tariff began", override_veto)
