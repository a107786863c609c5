"""What a controller saw: its last observation, for `churn rollout status`, and the counts of all
observations."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select

from rollout.database.connection import Database
from rollout.database.rollouts import update_row
from rollout.database.tables import OBSERVATIONS, ROLLOUTS
from rollout.state import Rollout


class Observations(Database):
    def observation(self, id: str) -> dict[str, Any] | None:
        """The last record that `save_observation` wrote."""
        with self._reading() as connection:
            found = connection.execute(
                select(ROLLOUTS.c.look).where(ROLLOUTS.c.id == id)
            ).scalar_one_or_none()
        return None if found is None else dict(found)

    def observations(self, id: str) -> list[tuple[datetime, dict[str, Any]]]:
        """Time and counts of each observation, the oldest first."""
        query = select(OBSERVATIONS).where(OBSERVATIONS.c.rollout == id).order_by(OBSERVATIONS.c.number)
        with self._reading() as connection:
            return [(row.at, dict(row.counts)) for row in connection.execute(query)]

    def save_observation(
        self,
        rollout: Rollout,
        seen: Mapping[str, Any],
        counts: Mapping[datetime, Mapping[str, Any]],
        *,
        holder: str | None = None,
    ) -> None:
        """`seen`: the last observation, which is no decision. `counts`: of all observations that were not
        saved yet, by their time (rollout/observers/recorded.py). Raises Overtaken as `Store.save` does."""
        values = {
            "look": dict(seen),
            "unready_since": rollout.unready_since,
            "trouble": rollout.trouble,
            "controller": rollout.controller,
        }
        with self._writing() as connection:
            update_row(connection, rollout, values, holder)
            rows = [{"rollout": rollout.id, "at": at, "counts": dict(of)} for at, of in counts.items()]
            if rows:
                connection.execute(insert(OBSERVATIONS), rows)

    def remove_observations(self, ended_before: datetime) -> int:
        """Remove the counts of all rollouts that ended before then, not their events; returns how many."""
        over = select(ROLLOUTS.c.id).where(ROLLOUTS.c.active.is_(None), ROLLOUTS.c.ended < ended_before)
        with self._writing() as connection:
            return connection.execute(delete(OBSERVATIONS).where(OBSERVATIONS.c.rollout.in_(over))).rowcount
