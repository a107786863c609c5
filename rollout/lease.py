"""Who may act on a model's rollout: one holder, until it falls silent.

Taking over is one UPDATE that only the first of two can win. The clocks of the machines that may hold it
have to agree to well within `lease_s`.
"""

import os
import secrets
import socket
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine, insert, select, update
from sqlalchemy.exc import IntegrityError

from rollout.errors import LeaseHeld
from rollout.tables import LEASES


@dataclass(frozen=True)
class Held:
    holder: str
    expires: datetime


def new_holder() -> str:
    """A name that no other controller has, and a person can find: host, process, chance."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


class Leases:
    def __init__(self, engine: Engine, seconds: float) -> None:
        self._engine, self._length = engine, timedelta(seconds=seconds)

    def take(self, model: str, holder: str, now: datetime) -> None:
        """Take it or renew it. Raises LeaseHeld while somebody else's has not expired."""
        mine = (
            update(LEASES)
            .where(LEASES.c.model == model, (LEASES.c.holder == holder) | (LEASES.c.expires <= now))
            .values(holder=holder, expires=now + self._length)
        )
        with self._engine.begin() as connection:
            if connection.execute(mine).rowcount:
                return
        try:
            with self._engine.begin() as connection:
                first = insert(LEASES).values(model=model, holder=holder, expires=now + self._length)
                connection.execute(first)
        except IntegrityError:
            held = self.held(model)
            who = held.holder if held else "another controller"
            raise LeaseHeld(f"{model}: controlled by {who}") from None

    def held(self, model: str) -> Held | None:
        """Who has it, expired or not."""
        with self._engine.connect() as connection:
            row = connection.execute(select(LEASES).where(LEASES.c.model == model)).one_or_none()
        return None if row is None else Held(row.holder, row.expires)

    def release(self, model: str, holder: str, now: datetime) -> None:
        """Let the next one have it at once."""
        with self._engine.begin() as connection:
            connection.execute(
                update(LEASES).where(LEASES.c.model == model, LEASES.c.holder == holder).values(expires=now)
            )
