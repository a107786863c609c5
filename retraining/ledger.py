"""The ledger in `rollout.database`: requests, decisions with their evidence, runs, steps and grades.

Decisions, steps and grades are only ever appended. A decision and the run that it grants are written in one
transaction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from retraining.codec import DECISION, EVIDENCE, POLICY, STATE, as_json, digest, evidence_digest
from retraining.config import RetrainConfig
from retraining.decision import Action, Attempt, Decision, Evidence, Outcome, PersonRequest, State
from retraining.governor import decide
from rollout.database.fencing import Fence, FencingLeases, pass_fence
from rollout.database.tables import (
    RETRAINING_DECISIONS,
    RETRAINING_GRADES,
    RETRAINING_REQUESTS,
    RETRAINING_RUNS,
    RETRAINING_STEPS,
    ROLLOUTS,
)
from rollout.errors import RolloutError
from rollout.targets.target import Candidate

MOST_ATTEMPTS = 50
"""Runs that a state holds: more than any budget allows in its span."""


@dataclass(frozen=True)
class Entry:
    """A row of the ledger: a decision, and what it was made from as it was stored."""

    number: int
    at: datetime
    woken_by: str
    policy: Mapping[str, Any]
    state: Mapping[str, Any]
    evidence: Mapping[str, Any]
    evidence_sha256: str
    decision: Decision
    is_new: bool = False
    """Whether this wake-up wrote it."""


@dataclass(frozen=True)
class Run:
    """A granted run."""

    id: str
    model: str
    decision: int
    started: datetime
    ended: datetime | None
    outcome: Outcome
    detail: str
    evidence_at: datetime | None
    labels_until: datetime | None
    candidate: Candidate | None
    """The archive that passed the gates."""
    rollout: str | None


@dataclass(frozen=True)
class Grade:
    """What a decision was worth, once the labels that decide it have matured."""

    decision: int
    at: datetime
    grade: str
    """`right` or `wrong`."""
    reason: str
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class StepEvent:
    """A step of a run that began, ended or was skipped because its result existed."""

    step: str
    token: int
    what: str
    at: datetime


class Ledger(FencingLeases):
    """Every method is one transaction. All raise RolloutError when the database cannot be reached."""

    # requests of people

    def ask(self, model: str, who: str, reason: str, override_veto: bool, now: datetime) -> int:
        """Write a request for a training, which the next decision answers. Returns its number."""
        row = {"model": model, "at": now, "who": who, "reason": " ".join(reason.split()),
               "override_veto": override_veto}  # fmt: skip
        with self._writing() as connection:
            number = connection.execute(insert(RETRAINING_REQUESTS).values(row)).inserted_primary_key
        return int(number[0]) if number else 0

    def waiting(self, model: str) -> PersonRequest | None:
        """The oldest request that no decision has answered."""
        requests, decisions = RETRAINING_REQUESTS.c, RETRAINING_DECISIONS.c
        answered = select(decisions.request).where(decisions.model == model, decisions.request.is_not(None))
        query = (
            select(RETRAINING_REQUESTS)
            .where(requests.model == model, requests.number.not_in(answered))
            .order_by(requests.number)
            .limit(1)
        )
        with self._reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return PersonRequest(row.number, row.at, row.who, row.reason, row.override_veto)

    # decisions

    def state(self, model: str, version: str, trained: datetime | None) -> State:
        """What was done before; `version` serves, and was trained at `trained`."""
        query = (
            select(RETRAINING_RUNS, ROLLOUTS.c.ended.label("rollout_ended"))
            .join(ROLLOUTS, ROLLOUTS.c.id == RETRAINING_RUNS.c.rollout, isouter=True)
            .where(RETRAINING_RUNS.c.model == model)
            .order_by(RETRAINING_RUNS.c.started.desc(), RETRAINING_RUNS.c.id.desc())
            .limit(MOST_ATTEMPTS)
        )
        with self._reading() as connection:
            rows = connection.execute(query).all()
            running = connection.execute(select(ROLLOUTS.c.id).where(ROLLOUTS.c.active == model))
            rollout = running.scalar_one_or_none() or ""
        return State(version, trained, tuple(_attempt(row) for row in reversed(rows)), rollout)

    def decide(
        self, policy: RetrainConfig, state: State, evidence: Evidence, now: datetime, woken_by: str
    ) -> Entry:
        """Decide and record. A granted decision begins its run in the same transaction.

        Evidence that has granted a run grants no second one, and the same answer to the same evidence is
        recorded once: the first entry is returned. Raises RolloutError where another process has begun a run
        since `state` was read; read it again.
        """
        sha256 = evidence_digest(evidence)
        if (granted := self._entry(evidence.model, sha256, action=Action.YES.value)) is not None:
            return granted
        decision = decide(policy, state, evidence, now)
        key = {
            "action": decision.action.value,
            "trigger": decision.trigger.value if decision.trigger else "",
            "obstacle": decision.obstacle.value if decision.obstacle else "",
        }
        row = {
            "model": evidence.model,
            "at": now,
            "woken_by": woken_by,
            "policy": as_json(POLICY, policy),
            "state": as_json(STATE, state),
            "evidence": as_json(EVIDENCE, evidence),
            "evidence_sha256": sha256,
            "request": evidence.request.number if evidence.request else None,
            "reason": decision.reason,
            "numbers": as_json(DECISION, decision)["numbers"],
            **key,
        }
        try:
            with self._writing() as connection:
                written = connection.execute(insert(RETRAINING_DECISIONS).values(row)).inserted_primary_key
                number = int(written[0]) if written else 0
                if decision.granted:
                    connection.execute(insert(RETRAINING_RUNS).values(_run_row(number, evidence, now)))
        except IntegrityError:
            if (before := self._entry(evidence.model, sha256, **key)) is not None:
                return before
            raise RolloutError(
                f"{evidence.model}: another process has just begun a retraining; see `churn retrain status`"
            ) from None
        found = self._entry(evidence.model, sha256, **key)
        assert found is not None
        return Entry(**{**found.__dict__, "is_new": True})

    def entries(self, model: str) -> list[Entry]:
        """All decisions, the oldest first."""
        query = select(RETRAINING_DECISIONS).where(RETRAINING_DECISIONS.c.model == model)
        with self._reading() as connection:
            return [_entry(row) for row in connection.execute(query.order_by(RETRAINING_DECISIONS.c.number))]

    def _entry(self, model: str, sha256: str, **key: str) -> Entry | None:
        columns = RETRAINING_DECISIONS.c
        query = select(RETRAINING_DECISIONS).where(
            columns.model == model,
            columns.evidence_sha256 == sha256,
            *(columns[name] == value for name, value in key.items()),
        )
        with self._reading() as connection:
            row = connection.execute(query.limit(1)).one_or_none()
        return None if row is None else _entry(row)

    # runs

    def runs(self, model: str) -> list[Run]:
        """All runs, the oldest first."""
        query = select(RETRAINING_RUNS).where(RETRAINING_RUNS.c.model == model)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(RETRAINING_RUNS.c.started, RETRAINING_RUNS.c.id)).all()
        return [_run(row) for row in rows]

    def active(self, model: str) -> Run | None:
        """The run that has not ended."""
        return next((run for run in reversed(self.runs(model)) if run.outcome is Outcome.RUNNING), None)

    def record_step(self, fence: Fence, step: str, what: str, now: datetime) -> None:
        """Append an event of a step. Raises Overtaken where another process has taken the run over."""
        row = {"run": fence.run, "token": fence.token, "step": step, "what": what, "at": now}
        with self._writing() as connection:
            pass_fence(connection, fence)
            connection.execute(insert(RETRAINING_STEPS).values(row))

    def steps(self, run: str) -> list[StepEvent]:
        """The events of a run's steps, the oldest first."""
        query = select(RETRAINING_STEPS).where(RETRAINING_STEPS.c.run == run)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(RETRAINING_STEPS.c.number)).all()
        return [StepEvent(row.step, row.token, row.what, row.at) for row in rows]

    def record_candidate(self, fence: Fence, candidate: Candidate) -> None:
        """The archive that passed the gates. Raises Overtaken as `record_step` does."""
        with self._writing() as connection:
            pass_fence(connection, fence)
            _change(connection, fence, candidate=candidate.__dict__)

    def end(self, fence: Fence, outcome: Outcome, detail: str, now: datetime) -> None:
        """The run has ended. Raises Overtaken as `record_step` does."""
        with self._writing() as connection:
            pass_fence(connection, fence)
            _change(connection, fence, active=None, ended=now, outcome=outcome.value, detail=detail)

    # grades

    def grades(self, model: str) -> dict[int, Grade]:
        """The number of a decision -> its grade."""
        mine = select(RETRAINING_DECISIONS.c.number).where(RETRAINING_DECISIONS.c.model == model)
        query = select(RETRAINING_GRADES).where(RETRAINING_GRADES.c.decision.in_(mine))
        with self._reading() as connection:
            rows = connection.execute(query).all()
        return {row.decision: Grade(row.decision, row.at, row.grade, row.reason, row.numbers) for row in rows}

    def save_grade(self, grade: Grade) -> None:
        """Append a grade. A decision is graded once: a second grade changes nothing."""
        try:
            with self._writing() as connection:
                connection.execute(insert(RETRAINING_GRADES).values(**grade.__dict__))
        except IntegrityError:
            return


def run_id(decision: int, now: datetime) -> str:
    """An identifier that sorts by time; a decision has one run."""
    return f"{now:%Y%m%d-%H%M%S}-{decision}"


def _run_row(decision: int, evidence: Evidence, now: datetime) -> dict[str, Any]:
    return {
        "id": run_id(decision, now),
        "model": evidence.model,
        "active": evidence.model,
        "decision": decision,
        "started": now,
        "outcome": Outcome.RUNNING.value,
        "detail": "",
        "evidence_at": evidence.windows[-1].at if evidence.windows else None,
        "labels_until": evidence.labels.newest,
    }


def _change(connection: Connection, fence: Fence, **values: Any) -> None:
    connection.execute(update(RETRAINING_RUNS).where(RETRAINING_RUNS.c.id == fence.run).values(values))


def _attempt(row: Row[Any]) -> Attempt:
    ended = max((end for end in (row.ended, row.rollout_ended) if end), default=None) if row.ended else None
    return Attempt(row.id, row.started, ended, Outcome(row.outcome), row.evidence_at)


def _run(row: Row[Any]) -> Run:
    candidate = Candidate(**row.candidate) if row.candidate else None
    return Run(row.id, row.model, row.decision, row.started, row.ended, Outcome(row.outcome), row.detail,
               row.evidence_at, row.labels_until, candidate, row.rollout)  # fmt: skip


def _entry(row: Row[Any]) -> Entry:
    decision = DECISION.validate_python(
        {
            "action": row.action,
            "trigger": row.trigger or None,
            "obstacle": row.obstacle or None,
            "reason": row.reason,
            "numbers": row.numbers,
        }
    )
    return Entry(
        row.number, row.at, row.woken_by, row.policy, row.state, row.evidence, row.evidence_sha256, decision
    )


def derived_again(entry: Entry) -> list[str]:
    """The fields of an entry that differ from those derived again from its stored evidence; empty: none.

    The digest is that of the stored text, and the decision is that of the governor for the stored policy,
    state, evidence and time.
    """
    different = [] if digest(entry.evidence) == entry.evidence_sha256 else ["evidence_sha256"]
    again = decide(
        POLICY.validate_python(entry.policy),
        STATE.validate_python(entry.state),
        EVIDENCE.validate_python(entry.evidence),
        entry.at,
    )
    stored, found = as_json(DECISION, entry.decision), as_json(DECISION, again)
    return different + [name for name in stored if stored[name] != found[name]]
