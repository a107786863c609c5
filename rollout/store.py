"""The database of rollouts: begins rollouts, and joins the queries of rollout/database/."""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from rollout.config import RolloutConfig
from rollout.database.fencing import Fence
from rollout.database.leases import Leases
from rollout.database.observations import Observations
from rollout.database.projections import Projections
from rollout.database.requests import Requests, request_row
from rollout.database.rollouts import update_row
from rollout.database.stable import Stable
from rollout.database.tables import EVENTS, REQUESTS
from rollout.errors import RolloutError
from rollout.records import event_row, rollout_row
from rollout.state import Change, Event, Rollout, plan_of
from rollout.targets.target import Candidate


class Store(Stable, Observations, Requests, Leases, Projections):
    """Every method is one transaction. All raise RolloutError when the database cannot be reached."""

    def __init__(self, uri: str, lease_s: float = 30.0) -> None:
        super().__init__(uri)
        self._lease_s = lease_s

    def start(self, model: str, change: Change, config: RolloutConfig, fence: Fence | None = None) -> Rollout:
        """Begin a rollout, which waits for a controller; `fence`: of the retraining run that starts it.

        Raises RolloutError while another one of the model runs, and Overtaken where another process has taken
        the retraining run over.
        """
        fresh = _fresh(model, change, plan_of(config))
        event = Event(change.at, "start", fresh.reason or f"started by {change.who}", who=change.who)
        return self._insert(fresh, event, fence)

    def served_at_once(self, model: str, change: Change) -> Rollout:
        """Record a change without a rollout: a person made it, or it was found. Raises RolloutError while one
        runs."""
        fresh = _fresh(model, change, {})
        done = replace(fresh, phase="promoted", promoted=True, ended=change.at, outcome=fresh.reason)
        if self.current(model) is not None:
            raise self._already_running(model)
        event = Event(change.at, "finish", fresh.reason, weight=100, phase="promoted", who=change.who)
        return self._insert(done, event)

    def reopen(self, rollout: Rollout, who: str, reason: str, now: datetime) -> Rollout:
        """Take a promoted rollout back after its end: it is watched again, with a request to abort it.

        Raises RolloutError while another one of the model runs, or when there is nothing to return to.
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
        request = request_row(rollout.id, "abort", who, reason, now)
        event = Event(
            now, "reopen", request["reason"], weight=100, phase="watching", stage=rollout.stage, who=who
        )
        try:
            with self._writing() as connection:
                update_row(connection, rollout, rollout_row(again), None)
                connection.execute(insert(EVENTS).values(event_row(rollout.id, again.sequence, event)))
                connection.execute(insert(REQUESTS).values(request))
        except IntegrityError:
            raise self._already_running(rollout.model) from None
        return again


def new_id(candidate: Candidate, now: datetime) -> str:
    """An identifier that sorts by time and is short enough to type."""
    return f"{now:%Y%m%d-%H%M%S}-{candidate.version[:6]}-{secrets.token_hex(2)}"


def _fresh(model: str, change: Change, plan: Mapping[str, Any]) -> Rollout:
    return Rollout(
        id=new_id(change.to, change.at),
        model=model,
        candidate=change.to,
        previous=change.previous,
        phase="starting",
        stage=0,
        paused=False,
        windows=(),
        started=change.at,
        by=change.who,
        reason=" ".join(change.why.split()),
        plan=plan,
        since=change.at,
    )
