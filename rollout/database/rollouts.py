"""Rollouts and their events: state and history are written in one transaction."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, exists, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from rollout.database.connection import Database
from rollout.database.fencing import Fence, check_open, name_rollout
from rollout.database.requests import mark_answered
from rollout.database.tables import CONFIRMATIONS, EVENTS, LEASES, ROLLOUTS
from rollout.errors import Overtaken, RolloutError
from rollout.records import event_of, event_row, rollout_of, rollout_row
from rollout.state import Event, Request, Rollout


class Rollouts(Database):
    # queries

    def load(self, id: str) -> Rollout:
        """Raises RolloutError for one that does not exist."""
        found = self._one(select(ROLLOUTS).where(ROLLOUTS.c.id == id))
        if found is None:
            raise RolloutError(f"no rollout {id}; `churn rollout history` names those there are")
        return found

    def current(self, model: str) -> Rollout | None:
        """The rollout that runs."""
        return self._one(select(ROLLOUTS).where(ROLLOUTS.c.active == model))

    def newest(self, model: str) -> Rollout | None:
        """The rollout that was started last, whether it runs or has ended."""
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

    def phases(self, model: str) -> dict[str, int]:
        """The number of rollouts in each phase."""
        query = select(ROLLOUTS.c.phase, func.count().label("n")).where(ROLLOUTS.c.model == model)
        with self._reading() as connection:
            return {row.phase: row.n for row in connection.execute(query.group_by(ROLLOUTS.c.phase))}

    def history(self, id: str) -> list[Event]:
        """All events, the oldest first."""
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

    def _one(self, query: Select[Any]) -> Rollout | None:
        with self._reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else rollout_of(row)

    # changes

    def save(
        self,
        rollout: Rollout,
        event: Event,
        *,
        holder: str | None = None,
        answers: Request | None = None,
        confirms: int = 0,
    ) -> Rollout:
        """Write state and event together; returns the rollout with its new sequence number. `confirms`: the
        number of the event whose intention has been carried out. The last event of a rollout answers all its
        requests.

        Raises Overtaken where another process has written since `rollout` was read, or `holder` has lost the
        lease. Nothing is written then.
        """
        number = rollout.sequence + 1
        saved = replace(rollout, sequence=number)
        with self._writing() as connection:
            update_row(connection, rollout, rollout_row(saved), holder)
            connection.execute(insert(EVENTS).values(event_row(rollout.id, number, event)))
            if confirms:
                connection.execute(_confirmation(rollout.id, confirms, event.at))
            mark_answered(connection, rollout.id, number, answers, saved.over)
        return saved

    def confirm(self, rollout: Rollout, now: datetime, *, holder: str | None = None) -> Rollout:
        """The pending intention has been carried out at the target; `rollout` may contain changed windows."""
        done = replace(rollout, pending=0, trouble="", stuck=False)
        with self._writing() as connection:
            update_row(connection, rollout, rollout_row(done), holder)
            connection.execute(_confirmation(rollout.id, rollout.pending, now))
        return done

    def _insert(self, rollout: Rollout, event: Event, fence: Fence | None = None) -> Rollout:
        """A new rollout with its first event. Raises RolloutError while another one of the model runs, and
        Overtaken where the token of `fence` is not the newest."""
        first = replace(rollout, sequence=1)
        try:
            with self._writing() as connection:
                if fence is not None:
                    check_open(connection, fence)
                connection.execute(insert(ROLLOUTS).values(rollout_row(first)))
                connection.execute(insert(EVENTS).values(event_row(first.id, 1, event)))
                if fence is not None:
                    name_rollout(connection, fence, first.id)
        except IntegrityError:
            raise self._already_running(rollout.model) from None
        return first

    def refuse_while_running(self, model: str) -> None:
        """Raises RolloutError where a rollout of the model runs."""
        if self.current(model) is not None:
            raise self._already_running(model)

    def _already_running(self, model: str) -> RolloutError:
        running = self.current(model)
        which = running.id if running else "another one"
        return RolloutError(
            f"{model}: rollout {which} is running; wait for its end or `churn rollout abort --reason ...`"
        )


def update_row(
    connection: Connection, before: Rollout, values: Mapping[str, Any], holder: str | None
) -> None:
    """The first statement of its transaction: SQLite locks the database for the first writer.

    Raises Overtaken where the row has changed since `before` was read, or `holder` has lost the lease.
    """
    where = [ROLLOUTS.c.id == before.id, ROLLOUTS.c.sequence == before.sequence]
    if holder is not None:
        where.append(exists().where(LEASES.c.model == before.model, LEASES.c.holder == holder))
    if connection.execute(update(ROLLOUTS).where(*where).values(**values)).rowcount != 1:
        raise Overtaken(f"rollout {before.id}: another controller has taken it")


def _confirmation(id: str, sequence: int, now: datetime) -> Any:
    return insert(CONFIRMATIONS).values(rollout=id, sequence=sequence, at=now)
