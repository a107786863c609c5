"""The lease of a retraining run, with a token that grows with each holder.

A process can be paused for longer than its lease and continue afterwards, without any sign that another one
has taken over. So the lease alone protects nothing. Each holder gets a larger token, and the start of a
rollout checks in its own transaction that no larger one was given out (Kleppmann, 2016, "How to do
distributed locking").
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from rollout.database.connection import Database
from rollout.database.tables import RETRAINING_LEASES, RETRAINING_RUNS
from rollout.errors import LeaseHeld, Overtaken

LEASE = RETRAINING_LEASES.c


@dataclass(frozen=True)
class Fence:
    """What a runner shows at each write: its run, and the token with which it took the lease."""

    model: str
    run: str
    token: int


class FencingLeases(Database):
    def take_token(self, model: str, holder: str, now: datetime, lease_s: float) -> int:
        """Take the lease and return its token, which is larger than all before.

        Raises LeaseHeld while the lease of another holder has not expired.
        """
        expires = now + timedelta(seconds=lease_s)
        free = LEASE.model == model, LEASE.expires <= now
        taken = (
            update(RETRAINING_LEASES)
            .where(*free)
            .values(token=LEASE.token + 1, holder=holder, expires=expires)
        )
        mine = select(LEASE.token).where(LEASE.model == model)
        with self._writing() as connection:
            if connection.execute(taken).rowcount:
                return int(connection.execute(mine).scalar_one())
        row = {"model": model, "token": 1, "holder": holder, "expires": expires}
        try:
            with self._writing() as connection:
                connection.execute(insert(RETRAINING_LEASES).values(row))
            return 1
        except IntegrityError:
            with self._reading() as connection:
                who = connection.execute(select(LEASE.holder).where(LEASE.model == model)).scalar_one()
            raise LeaseHeld(f"{model}: process {who} runs a retraining; wait for its end") from None

    def renew_token(self, fence: Fence, now: datetime, lease_s: float) -> None:
        """Extend the lease. Raises Overtaken where a larger token was given out."""
        with self._writing() as connection:
            pass_fence(connection, fence, now + timedelta(seconds=lease_s))

    def release_token(self, fence: Fence, now: datetime) -> None:
        """Give the lease up, so that another process can take it at once."""
        mine = LEASE.model == fence.model, LEASE.token == fence.token
        with self._writing() as connection:
            connection.execute(update(RETRAINING_LEASES).where(*mine).values(expires=now))

    def token_holder(self, model: str, now: datetime) -> str | None:
        """The process that runs a retraining now, if there is one."""
        query = select(LEASE.holder).where(LEASE.model == model, LEASE.expires > now)
        with self._reading() as connection:
            holder: str | None = connection.execute(query).scalar_one_or_none()
        return holder


def pass_fence(connection: Connection, fence: Fence, expires: datetime | None = None) -> None:
    """The first statement of a transaction that only the newest holder may commit; it locks the lease.

    Raises Overtaken where a larger token was given out.
    """
    mine = LEASE.model == fence.model, LEASE.token == fence.token
    values = {"token": fence.token} if expires is None else {"expires": expires}
    if connection.execute(update(RETRAINING_LEASES).where(*mine).values(values)).rowcount != 1:
        raise Overtaken(
            f"run {fence.run}: token {fence.token} is no longer the newest of {fence.model}: another process"
            " has taken the run over, and this one stops"
        )


def check_open(connection: Connection, fence: Fence) -> None:
    """Before a rollout is inserted, in its transaction: the token is the newest, and the run has no rollout.

    Raises Overtaken otherwise.
    """
    pass_fence(connection, fence)
    runs = RETRAINING_RUNS.c
    open_run = runs.id == fence.run, runs.active == fence.model, runs.rollout.is_(None)
    if connection.execute(select(runs.id).where(*open_run)).one_or_none() is None:
        raise Overtaken(f"run {fence.run}: has started its rollout or has ended; see `churn retrain status`")


def name_rollout(connection: Connection, fence: Fence, rollout: str) -> None:
    """After the insertion of the rollout, in its transaction: the run names it."""
    mine = update(RETRAINING_RUNS).where(RETRAINING_RUNS.c.id == fence.run)
    connection.execute(mine.values(rollout=rollout))
