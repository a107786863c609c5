"""What people ask of the controller, in whichever process it runs: it answers at its next tick."""

from datetime import datetime

from sqlalchemy import Connection, case, insert, select, update

from rollout.database import Database
from rollout.state import Asked, Request
from rollout.tables import REQUESTS


class Requests(Database):
    def ask(self, id: str, what: Asked, who: str, reason: str, now: datetime) -> Request:
        reason = " ".join(reason.split())
        row = {"rollout": id, "at": now, "what": what, "who": who, "reason": reason}
        with self._writing() as connection:
            number = connection.execute(insert(REQUESTS).values(row)).inserted_primary_key
        return Request(int(number[0]) if number else 0, now, what, who, reason)

    def asked(self, id: str) -> Request | None:
        """What is answered next: an abort whenever it was asked, else the oldest that nobody has answered."""
        urgency = case((REQUESTS.c.what == "abort", 0), else_=1)
        query = (
            select(REQUESTS)
            .where(REQUESTS.c.rollout == id, REQUESTS.c.answered.is_(None))
            .order_by(urgency, REQUESTS.c.number)
            .limit(1)
        )
        with self._reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Request(row.number, row.at, row.what, row.who, row.reason)

    def answer(self, request: Request) -> int | None:
        """Sequence of the event that answered it; None: nobody has yet."""
        query = select(REQUESTS.c.answered).where(REQUESTS.c.number == request.number)
        with self._reading() as connection:
            number: int | None = connection.execute(query).scalar_one()
        return number


def answered(connection: Connection, id: str, event: int, request: Request | None, over: bool) -> None:
    """In the transaction that writes `event`: it answers `request`, at the end of a rollout all others too,
    so that nobody waits for what nobody will look at any more."""
    waiting = REQUESTS.c.rollout == id, REQUESTS.c.answered.is_(None)
    if over:
        connection.execute(update(REQUESTS).where(*waiting).values(answered=event))
    elif request is not None:
        connection.execute(
            update(REQUESTS).where(*waiting, REQUESTS.c.number == request.number).values(answered=event)
        )
