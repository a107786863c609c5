"""Whether registry and target agree with the database, for `churn rollout status` in another process."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, insert, select

from rollout.database.connection import Database
from rollout.database.tables import PROJECTIONS


@dataclass(frozen=True)
class Projection:
    """A copy of what the database records as stable."""

    name: str
    """`registry` or `target`."""
    agrees: bool
    detail: str
    since: datetime


class Projections(Database):
    def projections(self, model: str) -> list[Projection]:
        query = select(PROJECTIONS).where(PROJECTIONS.c.model == model).order_by(PROJECTIONS.c.name)
        with self._reading() as connection:
            rows = connection.execute(query).all()
        return [Projection(row.name, row.agrees, row.detail, row.since) for row in rows]

    def save_projection(self, model: str, found: Projection) -> None:
        same = PROJECTIONS.c.model == model, PROJECTIONS.c.name == found.name
        row = {"model": model, "name": found.name, "agrees": found.agrees, "detail": found.detail,
               "since": found.since}  # fmt: skip
        with self._writing() as connection:
            connection.execute(delete(PROJECTIONS).where(*same))
            connection.execute(insert(PROJECTIONS).values(row))
