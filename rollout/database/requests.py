"""Requests of people to the controller, in whichever process it runs: it answers at its next tick."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, case, insert, select, update

from rollout.database.connection import Database
from rollout.database.tables import REQUESTS
from rollout.state import Request, RequestKind


class Requests(Database):
    def request(self, id: str, what: RequestKind, who: str, reason: str, now: datetime) -> Request:
        """Write a request, which the controller of rollout `id` answers."""
        row = request_row(id, what, who, reason, now)
        with self._writing() as connection:
            number = connection.execute(insert(REQUESTS).values(row)).inserted_primary_key
        return Request(int(number[0]) if number else 0, now, what, who, row["reason"])

    def next_request(self, id: str) -> Request | None:
        """The request to answer next: an abort, even where others are older, else the oldest without an
        answer."""
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
        """The sequence number of the event that answered it; None: it has no answer yet."""
        query = select(REQUESTS.c.answered).where(REQUESTS.c.number == request.number)
        with self._reading() as connection:
            number: int | None = connection.execute(query).scalar_one()
        return number


def request_row(id: str, what: RequestKind, who: str, reason: str, now: datetime) -> dict[str, Any]:
    return {"rollout": id, "at": now, "what": what, "who": who, "reason": " ".join(reason.split())}


def mark_answered(connection: Connection, id: str, event: int, request: Request | None, over: bool) -> None:
    """In the transaction that writes `event`: it answers `request`. At the end of a rollout (`over`) it
    answers all requests, because no controller reads them any more."""
    waiting = REQUESTS.c.rollout == id, REQUESTS.c.answered.is_(None)
    if over:
        connection.execute(update(REQUESTS).where(*waiting).values(answered=event))
    elif request is not None:
        connection.execute(
            update(REQUESTS).where(*waiting, REQUESTS.c.number == request.number).values(answered=event)
        )
