"""The lease: only its holder may act on a model's rollouts, until it expires.

A lease is taken over by one UPDATE, which only one of two processes can win. The clocks of machines that may
hold it have to agree to well within `lease_s`.
"""

import os
import secrets
import socket
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from rollout.database.connection import Database
from rollout.database.tables import LEASES
from rollout.errors import LeaseHeld


@dataclass(frozen=True)
class Held:
    holder: str
    expires: datetime


def new_holder() -> str:
    """A unique name by which a person finds the process: host, process id, random digits."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


class Leases(Database):
    _lease_s = 30.0

    def take_lease(self, model: str, holder: str, now: datetime) -> None:
        """Take or renew it. Raises LeaseHeld while another holder's lease has not expired."""
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
        """Give it up, so that another process can take it at once."""
        mine = update(LEASES).where(LEASES.c.model == model, LEASES.c.holder == holder).values(expires=now)
        with self._writing() as connection:
            connection.execute(mine)

    def controller(self, model: str, now: datetime) -> Held | None:
        """The holder that controls the model's rollouts now, if there is one."""
        held = self._held(model)
        return held if held is not None and held.expires > now else None

    def _held(self, model: str) -> Held | None:
        """The last holder, whether its lease has expired or not."""
        with self._reading() as connection:
            row = connection.execute(select(LEASES).where(LEASES.c.model == model)).one_or_none()
        return None if row is None else Held(row.holder, row.expires)
