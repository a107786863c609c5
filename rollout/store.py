"""Rollouts in a database: state, history, and what people ask of the controller."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, exists, insert, select, update
from sqlalchemy.exc import IntegrityError

from rollout.config import RolloutConfig
from rollout.database import open_database, reaching
from rollout.errors import Overtaken, RolloutError
from rollout.lease import Held, Leases
from rollout.observers.observer import Opened
from rollout.rules.rule import Verdict
from rollout.state import Asked, Event, Request, Rollout, finite, plan_of, verdict_record
from rollout.tables import CONFIRMATIONS, EVENTS, LEASES, REQUESTS, ROLLOUTS
from rollout.targets.target import Candidate


class Store:
    """Every method is one transaction; raises RolloutError when the database cannot be reached."""

    def __init__(self, uri: str, lease_s: float = 30.0) -> None:
        self._uri = uri
        self._engine = open_database(uri)
        self._leases = Leases(self._engine, lease_s)

    # rollouts

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
        fresh = Rollout(
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
            plan=plan_of(config),
            since=now,
        )
        event = Event(now, "start", fresh.reason or f"started by {by}", who=by)
        try:
            with reaching(self._uri), self._engine.begin() as connection:
                connection.execute(insert(ROLLOUTS).values(_row(replace(fresh, sequence=1))))
                connection.execute(insert(EVENTS).values(_event_row(fresh.id, 1, event)))
        except IntegrityError:
            raise self._taken(model) from None
        return replace(fresh, sequence=1)

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
            with reaching(self._uri), self._engine.begin() as connection:
                self._write(connection, rollout, _row(again), None)
                connection.execute(insert(EVENTS).values(_event_row(rollout.id, again.sequence, event)))
                connection.execute(insert(REQUESTS).values(asked))
        except IntegrityError:
            raise self._taken(rollout.model) from None
        return again

    def load(self, id: str) -> Rollout:
        """Raises RolloutError for one that does not exist."""
        with reaching(self._uri), self._engine.connect() as connection:
            row = connection.execute(select(ROLLOUTS).where(ROLLOUTS.c.id == id)).one_or_none()
        if row is None:
            raise RolloutError(f"no rollout {id}; `churn rollout history` names those there are")
        return _rollout(row)

    def current(self, model: str) -> Rollout | None:
        """The one that runs."""
        with reaching(self._uri), self._engine.connect() as connection:
            row = connection.execute(select(ROLLOUTS).where(ROLLOUTS.c.active == model)).one_or_none()
        return None if row is None else _rollout(row)

    def newest(self, model: str) -> Rollout | None:
        """The one that was started last, whether it runs or has ended."""
        return next(iter(self.all(model, 1)), None)

    def stable(self, model: str) -> Candidate | None:
        """The archive that all or most customers are to be answered by, as far as rollouts know: None before
        the first one."""
        known = [r for r in self.all(model) if not r.over] or sorted(
            self.all(model), key=lambda r: r.ended or r.started, reverse=True
        )
        newest = next(iter(known), None)
        if newest is None:
            return None
        promoted = newest.phase in ("promoted", "watching")
        return newest.candidate if promoted else newest.previous

    def serving(self, model: str) -> Rollout | None:
        """The rollout that promoted what is stable now, if it can be taken back."""
        stable = self.stable(model)
        if stable is None or self.current(model) is not None:
            return None
        return next(
            (
                rollout
                for rollout in self.all(model)
                if rollout.phase == "promoted"
                and rollout.candidate.sha256 == stable.sha256
                and rollout.previous
            ),
            None,
        )

    def taken_at_once(
        self,
        model: str,
        candidate: Candidate,
        previous: Candidate | None,
        by: str,
        reason: str,
        now: datetime,
    ) -> Rollout:
        """For the record: a person has served `candidate` without a rollout.

        Raises RolloutError while one runs.
        """
        done = Rollout(
            id=new_id(candidate, now),
            model=model,
            candidate=candidate,
            previous=previous,
            phase="promoted",
            stage=0,
            paused=False,
            windows=(),
            started=now,
            by=by,
            reason=reason,
            plan={},
            since=now,
            sequence=1,
            promoted=True,
            ended=now,
            outcome=reason,
        )
        if self.current(model) is not None:
            raise self._taken(model)
        event = Event(now, "finish", reason, weight=100, phase="promoted", who=by)
        with reaching(self._uri), self._engine.begin() as connection:
            connection.execute(insert(ROLLOUTS).values(_row(done)))
            connection.execute(insert(EVENTS).values(_event_row(done.id, 1, event)))
        return done

    def all(self, model: str, limit: int = 100) -> list[Rollout]:
        """The newest first."""
        query = (
            select(ROLLOUTS)
            .where(ROLLOUTS.c.model == model)
            .order_by(ROLLOUTS.c.started.desc(), ROLLOUTS.c.id.desc())
            .limit(limit)
        )
        with reaching(self._uri), self._engine.connect() as connection:
            return [_rollout(row) for row in connection.execute(query)]

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
        whose intention has been carried out.

        Raises Overtaken when somebody has written since `rollout` was read, or when `holder` does not hold
        the lease any more. Nothing is written then.
        """
        number = rollout.sequence + 1
        saved = replace(rollout, sequence=number)
        with reaching(self._uri), self._engine.begin() as connection:
            self._write(connection, rollout, _row(saved), holder)
            connection.execute(insert(EVENTS).values(_event_row(rollout.id, number, event)))
            if confirms:
                connection.execute(
                    insert(CONFIRMATIONS).values(_confirmation(rollout.id, confirms, event.at))
                )
            if answers is not None:
                answered = update(REQUESTS).where(REQUESTS.c.number == answers.number)
                connection.execute(answered.values(answered=number))
        return saved

    def confirm(self, rollout: Rollout, now: datetime, *, holder: str | None = None) -> Rollout:
        """The pending intention has been brought about at the target; `rollout` may carry new windows."""
        done = replace(rollout, pending=0)
        with reaching(self._uri), self._engine.begin() as connection:
            self._write(connection, rollout, _row(done), holder)
            connection.execute(insert(CONFIRMATIONS).values(_confirmation(rollout.id, rollout.pending, now)))
        return done

    def note(self, rollout: Rollout, look: Mapping[str, Any], *, holder: str | None = None) -> None:
        """What was seen last, which is no decision: for people who watch, and the count of unready looks."""
        values = {"look": dict(look), "unready": rollout.unready, "controller": rollout.controller}
        with reaching(self._uri), self._engine.begin() as connection:
            self._write(connection, rollout, values, holder)

    def look(self, id: str) -> dict[str, Any] | None:
        """What `note` wrote last."""
        with reaching(self._uri), self._engine.connect() as connection:
            found = connection.execute(
                select(ROLLOUTS.c.look).where(ROLLOUTS.c.id == id)
            ).scalar_one_or_none()
        return None if found is None else dict(found)

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
        with reaching(self._uri), self._engine.connect() as connection:
            return [_event(row) for row in connection.execute(query)]

    # what people ask

    def ask(self, id: str, what: Asked, who: str, reason: str, now: datetime) -> Request:
        """The controller obeys at its next tick, in whichever process it runs."""
        reason = " ".join(reason.split())
        row = {"rollout": id, "at": now, "what": what, "who": who, "reason": reason}
        with reaching(self._uri), self._engine.begin() as connection:
            number = connection.execute(insert(REQUESTS).values(row)).inserted_primary_key
        return Request(int(number[0]) if number else 0, now, what, who, reason)

    def asked(self, id: str) -> Request | None:
        """The oldest request that nobody has answered."""
        query = (
            select(REQUESTS)
            .where(REQUESTS.c.rollout == id, REQUESTS.c.answered.is_(None))
            .order_by(REQUESTS.c.number)
            .limit(1)
        )
        with reaching(self._uri), self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Request(row.number, row.at, row.what, row.who, row.reason)

    def answer(self, request: Request) -> int | None:
        """Sequence of the event that answered it; None: nobody has yet."""
        query = select(REQUESTS.c.answered).where(REQUESTS.c.number == request.number)
        with reaching(self._uri), self._engine.connect() as connection:
            number: int | None = connection.execute(query).scalar_one()
        return number

    # the lease

    def take_lease(self, model: str, holder: str, now: datetime) -> None:
        """Take or renew. Raises LeaseHeld while it is somebody else's."""
        with reaching(self._uri):
            self._leases.take(model, holder, now)

    def release_lease(self, model: str, holder: str, now: datetime) -> None:
        with reaching(self._uri):
            self._leases.release(model, holder, now)

    def controller(self, model: str, now: datetime) -> Held | None:
        """Who controls the model's rollouts now; None: nobody."""
        with reaching(self._uri):
            held = self._leases.held(model)
        return held if held is not None and held.expires > now else None

    def _taken(self, model: str) -> RolloutError:
        running = self.current(model)
        which = running.id if running else "another one"
        return RolloutError(
            f"{model}: rollout {which} is running; wait for its end or `churn rollout abort --reason ...`"
        )

    def _write(self, connection: Any, before: Rollout, values: Mapping[str, Any], holder: str | None) -> None:
        """First in its transaction: SQLite gives the lock to who begins with a write."""
        where = [ROLLOUTS.c.id == before.id, ROLLOUTS.c.sequence == before.sequence]
        if holder is not None:
            where.append(exists().where(LEASES.c.model == before.model, LEASES.c.holder == holder))
        if connection.execute(update(ROLLOUTS).where(*where).values(**values)).rowcount != 1:
            raise Overtaken(f"rollout {before.id}: another controller has taken it")


def new_id(candidate: Candidate, now: datetime) -> str:
    """Sorts by time, and a person can type it."""
    return f"{now:%Y%m%d-%H%M%S}-{candidate.version[:6]}-{secrets.token_hex(2)}"


def _row(rollout: Rollout) -> dict[str, Any]:
    row = {field.name: getattr(rollout, field.name) for field in fields(rollout)}
    return row | {
        "active": None if rollout.over else rollout.model,
        "candidate": asdict(rollout.candidate),
        "previous": None if rollout.previous is None else asdict(rollout.previous),
        "windows": [_window_record(window) for window in rollout.windows],
        "plan": dict(rollout.plan),
    }


def _rollout(row: Row[Any]) -> Rollout:
    content = {field.name: getattr(row, field.name) for field in fields(Rollout)}
    return Rollout(
        **content
        | {
            "candidate": Candidate(**row.candidate),
            "previous": None if row.previous is None else Candidate(**row.previous),
            "windows": _windows(row.windows),
        }
    )


def _confirmation(id: str, sequence: int, now: datetime) -> dict[str, Any]:
    return {"rollout": id, "sequence": sequence, "at": now}


def _window_record(window: Opened) -> dict[str, Any]:
    return asdict(window) | {
        "begun": window.begun.isoformat(),
        "ended": None if window.ended is None else window.ended.isoformat(),
        "before": finite(window.before),
        "after": None if window.after is None else finite(window.after),
    }


def _windows(records: Sequence[Mapping[str, Any]]) -> tuple[Opened, ...]:
    return tuple(
        Opened(
            **dict(record)
            | {
                "begun": datetime.fromisoformat(record["begun"]),
                "ended": None if record["ended"] is None else datetime.fromisoformat(record["ended"]),
            }
        )
        for record in records
    )


def _event_row(id: str, number: int, event: Event) -> dict[str, Any]:
    row = {field.name: getattr(event, field.name) for field in fields(event)}
    return row | {
        "rollout": id,
        "sequence": number,
        "numbers": finite(event.numbers),
        "verdicts": [verdict_record(verdict) for verdict in event.verdicts],
    }


def _event(row: Row[Any]) -> Event:
    content = {field.name: getattr(row, field.name) for field in fields(Event)}
    return Event(
        **content
        | {
            "verdicts": tuple(Verdict(**verdict) for verdict in row.verdicts),
            "done": row.done or row.confirmed is not None,
        }
    )
