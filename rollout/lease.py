"""Who may act on a model's rollout: one holder, until it falls silent.

Taking over is one UPDATE that only the first of two can win. The clocks of the machines that may hold it
have to agree to well within `lease_s`.
"""

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from rollout.database import Database
from rollout.errors import LeaseHeld, RolloutError
from rollout.tables import LEASES


@dataclass(frozen=True)
class Held:
    holder: str
    expires: datetime


def new_holder() -> str:
    """A name that no other controller has, and a person can find: host, process, chance."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


class LeaseTable(Database):
    _lease_s = 30.0

    def take_lease(self, model: str, holder: str, now: datetime) -> None:
        """Take it or renew it. Raises LeaseHeld while somebody else's has not expired."""
        expires = now + timedelta(seconds=self._lease_s)
        mine = (
            update(LEASES)
            .where(LEASES.c.model == model, (LEASES.c.holder == holder) | (LEASES.c.expires <= now))
            .values(holder=holder, expires=expires)
        )
        with self._writing() as connection:
            if connection.execute(mine).rowcount:
                return
        try:
            with self._writing() as connection:
                connection.execute(insert(LEASES).values(model=model, holder=holder, expires=expires))
        except IntegrityError:
            held = self._held(model)
            who = held.holder if held else "another controller"
            raise LeaseHeld(f"{model}: controlled by {who}") from None

    def release_lease(self, model: str, holder: str, now: datetime) -> None:
        """Let the next one have it at once."""
        mine = update(LEASES).where(LEASES.c.model == model, LEASES.c.holder == holder).values(expires=now)
        with self._writing() as connection:
            connection.execute(mine)

    def controller(self, model: str, now: datetime) -> Held | None:
        """Who controls the model's rollouts now; None: nobody."""
        held = self._held(model)
        return held if held is not None and held.expires > now else None

    def _held(self, model: str) -> Held | None:
        """Who has it, expired or not."""
        with self._reading() as connection:
            row = connection.execute(select(LEASES).where(LEASES.c.model == model)).one_or_none()
        return None if row is None else Held(row.holder, row.expires)


@contextmanager
def renewing(renew: Callable[[], None], every_s: float, at_most_s: float) -> Iterator[None]:
    """Renew a lease beside what runs inside: an action may wait for a cluster longer than the lease lasts.

    Not for ever: an action that hangs must lose it in the end. A renewal that fails is tried again; whoever
    has lost the lease meanwhile learns that when it writes.
    """
    over = threading.Event()

    def work() -> None:
        for _ in range(int(at_most_s / every_s) + 1):
            if over.wait(every_s):
                return
            with suppress(RolloutError):
                renew()

    thread = threading.Thread(target=work, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
