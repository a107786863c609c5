"""Rollouts in a database: state and history; with requests.py, lease.py and projections.py."""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, delete, exists, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from rollout.config import RolloutConfig
from rollout.errors import Overtaken, RolloutError
from rollout.lease import LeaseTable
from rollout.projections import Projections
from rollout.records import event_of, event_row, rollout_of, rollout_row
from rollout.requests import Requests, answered
from rollout.state import Event, Request, Rollout, plan_of
from rollout.tables import CONFIRMATIONS, EVENTS, LEASES, OBSERVATIONS, REQUESTS, ROLLOUTS
from rollout.targets.target import Candidate


class Store(Requests, LeaseTable, Projections):
    """Every method is one transaction; raises RolloutError when the database cannot be reached."""

    def __init__(self, uri: str, lease_s: float = 30.0) -> None:
        super().__init__(uri)
        self._lease_s = lease_s

    # to begin one

    def start(
        self,
        model: str,
        candidate: Candidate,
        previous: Candidate | None,
        config: RolloutConfig,
        by: str,
        reason: str,
        now: datetime,
    ) -> Rollout:
        """A rollout that waits for a controller. Raises RolloutError while another one of the model runs."""
        fresh = _fresh(model, candidate, previous, plan_of(config), by, reason, now)
        event = Event(now, "start", fresh.reason or f"started by {by}", who=by)
        return self._insert(fresh, event)

    def served_at_once(
        self,
        model: str,
        candidate: Candidate,
        previous: Candidate | None,
        by: str,
        reason: str,
        now: datetime,
    ) -> Rollout:
        """For the record: `candidate` is stable without a rollout, by a person or because it was found so.

        Raises RolloutError while one runs.
        """
        fresh = _fresh(model, candidate, previous, {}, by, reason, now)
        done = replace(fresh, phase="promoted", promoted=True, ended=now, outcome=fresh.reason)
        if self.current(model) is not None:
            raise self._taken(model)
        return self._insert(done, Event(now, "finish", fresh.reason, weight=100, phase="promoted", who=by))

    def reopen(self, rollout: Rollout, who: str, reason: str, now: datetime) -> Rollout:
        """Have a promoted rollout fall back after its end: it is watched again, and an abort is asked of it.

        Raises RolloutError while another one of the model runs, or when there is nothing to take back.
        """
        if rollout.phase != "promoted" or rollout.previous is None:
            raise RolloutError(f"rollout {rollout.id}: nothing to take back; it ended as {rollout.phase}")
        again = replace(
            rollout,
            phase="watching",
            ended=None,
            outcome="",
            since=now,
            controller="",
            sequence=rollout.sequence + 1,
        )
        reason = " ".join(reason.split())
        event = Event(now, "reopen", reason, weight=100, phase="watching", stage=rollout.stage, who=who)
        asked = {"rollout": rollout.id, "at": now, "what": "abort", "who": who, "reason": reason}
        try:
            with self._writing() as connection:
                _write(connection, rollout, rollout_row(again), None)
                connection.execute(insert(EVENTS).values(event_row(rollout.id, again.sequence, event)))
                connection.execute(insert(REQUESTS).values(asked))
        except IntegrityError:
            raise self._taken(rollout.model) from None
        return again

    # to read

    def load(self, id: str) -> Rollout:
        """Raises RolloutError for one that does not exist."""
        with self._reading() as connection:
            row = connection.execute(select(ROLLOUTS).where(ROLLOUTS.c.id == id)).one_or_none()
        if row is None:
            raise RolloutError(f"no rollout {id}; `churn rollout history` names those there are")
        return rollout_of(row)

    def current(self, model: str) -> Rollout | None:
        """The one that runs."""
        with self._reading() as connection:
            row = connection.execute(select(ROLLOUTS).where(ROLLOUTS.c.active == model)).one_or_none()
        return None if row is None else rollout_of(row)

    def newest(self, model: str) -> Rollout | None:
        """The one that was started last, whether it runs or has ended."""
        return next(iter(self.all(model, 1)), None)

    def all(self, model: str, limit: int = 100) -> list[Rollout]:
        """The newest first."""
        query = (
            select(ROLLOUTS)
            .where(ROLLOUTS.c.model == model)
            .order_by(ROLLOUTS.c.started.desc(), ROLLOUTS.c.id.desc())
            .limit(limit)
        )
        with self._reading() as connection:
            return [rollout_of(row) for row in connection.execute(query)]

    def stable(self, model: str) -> Candidate | None:
        """The archive that all or most customers are to be answered by: the truth that registry, servers and
        cluster are compared with. None before anything was served."""
        last = (
            select(ROLLOUTS)
            .where(ROLLOUTS.c.model == model)
            .order_by(
                ROLLOUTS.c.active.is_(None),  # one that runs comes first
                func.coalesce(ROLLOUTS.c.ended, ROLLOUTS.c.started).desc(),
                ROLLOUTS.c.id.desc(),
            )
            .limit(1)
        )
        with self._reading() as connection:
            row = connection.execute(last).one_or_none()
        if row is None:
            return None
        newest = rollout_of(row)
        return newest.candidate if newest.phase in ("promoted", "watching") else newest.previous

    def serving(self, model: str) -> Rollout | None:
        """The rollout that promoted what is stable now, if it can be taken back."""
        stable = self.stable(model)
        if stable is None or self.current(model) is not None:
            return None
        return self._promoter(model, stable)

    def before(self, model: str, stable: Candidate) -> Candidate | None:
        """What was stable before `stable` was: what `churn rollback` would bring back."""
        promoter = self._promoter(model, stable)
        return None if promoter is None else promoter.previous

    def _promoter(self, model: str, stable: Candidate) -> Rollout | None:
        promoted = (r for r in self.all(model) if r.phase == "promoted" and r.previous)
        return next((r for r in promoted if r.candidate.sha256 == stable.sha256), None)

    def history(self, id: str) -> list[Event]:
        """Every event, the oldest first."""
        same = and_(
            CONFIRMATIONS.c.rollout == EVENTS.c.rollout, CONFIRMATIONS.c.sequence == EVENTS.c.sequence
        )
        query = (
            select(EVENTS, CONFIRMATIONS.c.at.label("confirmed"))
            .join(CONFIRMATIONS, same, isouter=True)
            .where(EVENTS.c.rollout == id)
            .order_by(EVENTS.c.sequence)
        )
        with self._reading() as connection:
            return [event_of(row) for row in connection.execute(query)]

    def observation(self, id: str) -> dict[str, Any] | None:
        """What `save_observation` wrote last."""
        with self._reading() as connection:
            found = connection.execute(
                select(ROLLOUTS.c.look).where(ROLLOUTS.c.id == id)
            ).scalar_one_or_none()
        return None if found is None else dict(found)

    def observations(self, id: str) -> list[tuple[datetime, dict[str, Any]]]:
        """What was counted at each look, the oldest first."""
        query = select(OBSERVATIONS).where(OBSERVATIONS.c.rollout == id).order_by(OBSERVATIONS.c.number)
        with self._reading() as connection:
            return [(row.at, dict(row.counts)) for row in connection.execute(query)]

    # to write

    def save(
        self,
        rollout: Rollout,
        event: Event,
        *,
        holder: str | None = None,
        answers: Request | None = None,
        confirms: int = 0,
    ) -> Rollout:
        """State and event together; returns the rollout as it now stands. `confirms`: the number of the event
        whose intention has been carried out. The last event of a rollout answers all requests that wait.

        Raises Overtaken when somebody has written since `rollout` was read, or when `holder` does not hold
        the lease any more. Nothing is written then.
        """
        number = rollout.sequence + 1
        saved = replace(rollout, sequence=number)
        with self._writing() as connection:
            _write(connection, rollout, rollout_row(saved), holder)
            connection.execute(insert(EVENTS).values(event_row(rollout.id, number, event)))
            if confirms:
                connection.execute(
                    insert(CONFIRMATIONS).values(_confirmation(rollout.id, confirms, event.at))
                )
            answered(connection, rollout.id, number, answers, saved.over)
        return saved

    def confirm(self, rollout: Rollout, now: datetime, *, holder: str | None = None) -> Rollout:
        """The pending intention has been brought about at the target; `rollout` may carry new windows."""
        done = replace(rollout, pending=0, trouble="", stuck=False)
        with self._writing() as connection:
            _write(connection, rollout, rollout_row(done), holder)
            connection.execute(insert(CONFIRMATIONS).values(_confirmation(rollout.id, rollout.pending, now)))
        return done

    def save_observation(
        self,
        rollout: Rollout,
        seen: Mapping[str, Any],
        counts: Mapping[datetime, Mapping[str, Any]],
        *,
        holder: str | None = None,
    ) -> None:
        """What was seen last, which is no decision: for people who watch. `counts`: of each look that
        was not saved yet (rollout/observers/recorded.py), until `remove_observations`."""
        values = {
            "look": dict(seen),
            "unready_since": rollout.unready_since,
            "trouble": rollout.trouble,
            "controller": rollout.controller,
        }
        with self._writing() as connection:
            _write(connection, rollout, values, holder)
            rows = [{"rollout": rollout.id, "at": at, "counts": dict(of)} for at, of in counts.items()]
            if rows:
                connection.execute(insert(OBSERVATIONS), rows)

    def remove_observations(self, ended_before: datetime) -> int:
        """The counts of all rollouts that ended before then; how many. Events stay."""
        over = select(ROLLOUTS.c.id).where(ROLLOUTS.c.active.is_(None), ROLLOUTS.c.ended < ended_before)
        with self._writing() as connection:
            return connection.execute(delete(OBSERVATIONS).where(OBSERVATIONS.c.rollout.in_(over))).rowcount

    def _insert(self, fresh: Rollout, event: Event) -> Rollout:
        first = replace(fresh, sequence=1)
        try:
            with self._writing() as connection:
                connection.execute(insert(ROLLOUTS).values(rollout_row(first)))
                connection.execute(insert(EVENTS).values(event_row(first.id, 1, event)))
        except IntegrityError:
            raise self._taken(fresh.model) from None
        return first

    def _taken(self, model: str) -> RolloutError:
        running = self.current(model)
        which = running.id if running else "another one"
        return RolloutError(
            f"{model}: rollout {which} is running; wait for its end or `churn rollout abort --reason ...`"
        )


def new_id(candidate: Candidate, now: datetime) -> str:
    """Sorts by time, and a person can type it."""
    return f"{now:%Y%m%d-%H%M%S}-{candidate.version[:6]}-{secrets.token_hex(2)}"


def _fresh(
    model: str,
    candidate: Candidate,
    previous: Candidate | None,
    plan: Mapping[str, Any],
    by: str,
    reason: str,
    now: datetime,
) -> Rollout:
    return Rollout(
        id=new_id(candidate, now),
        model=model,
        candidate=candidate,
        previous=previous,
        phase="starting",
        stage=0,
        paused=False,
        windows=(),
        started=now,
        by=by,
        reason=" ".join(reason.split()),
        plan=plan,
        since=now,
    )


def _write(connection: Connection, before: Rollout, values: Mapping[str, Any], holder: str | None) -> None:
    """First in its transaction: SQLite gives the lock to who begins with a write."""
    where = [ROLLOUTS.c.id == before.id, ROLLOUTS.c.sequence == before.sequence]
    if holder is not None:
        where.append(exists().where(LEASES.c.model == before.model, LEASES.c.holder == holder))
    if connection.execute(update(ROLLOUTS).where(*where).values(**values)).rowcount != 1:
        raise Overtaken(f"rollout {before.id}: another controller has taken it")


def _confirmation(id: str, sequence: int, now: datetime) -> dict[str, Any]:
    return {"rollout": id, "sequence": sequence, "at": now}
