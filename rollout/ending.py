"""How a rollout ends: traffic is moved back first and then recorded, or the promotion is final."""

from contextlib import suppress
from dataclasses import replace

from core.errors import ChurnError
from rollout.errors import LeaseHeld, RolloutError
from rollout.session import Session
from rollout.situation import Decision, Observation, candidate_is_stable, not_back
from rollout.state import Change, Rollout


class Ending:
    def __init__(self, session: Session) -> None:
        self._session = session

    def go_back(self, rollout: Rollout, decision: Decision, seen: Observation) -> Rollout:
        """Traffic first. What the target does not show as done is recorded as pending."""
        session = self._session
        try:
            session.lease.take(rollout.model, session.clock.now())
        except LeaseHeld:
            raise
        except RolloutError:
            pass  # an unreachable database must not delay the way back
        trouble = self.move_back(rollout)
        session.fault_point("back_acted")
        fresh = replace(
            rollout.closed(seen.at, session.counters()),
            phase="rolling_back",
            ending=decision.ending or "rolled_back",
            outcome=decision.reason,
            pending=rollout.sequence + 1 if trouble else 0,
            trouble=trouble,
            stuck=False,
            paused=False,
            since=seen.at,
            # a candidate that has become stable is taken back as a promoted one from here on
            promoted=rollout.promoted or decision.action == "fall_back",
        )
        if trouble:
            decision = replace(decision, reason=f"{decision.reason}; not done yet: {trouble}")
        saved = session.journal.record(fresh, decision, seen)
        session.fault_point("back_recorded")
        if trouble:
            return saved
        return self.end(saved, Decision("end", fresh.outcome, ending=fresh.ending), seen)

    def go_back_again(self, rollout: Rollout, seen: Observation) -> Rollout:
        trouble = self.move_back(rollout)
        if trouble:
            return replace(rollout, trouble=trouble)
        self._session.fault_point("back_acted")
        return self._session.journal.confirm(rollout, seen.at)

    def move_back(self, rollout: Rollout) -> str:
        """Returns what the target does not show as done; empty: customers get the former stable archive."""
        target, before = self._session.connections.target, None
        with suppress(ChurnError):
            before = target.observe()
        try:
            if (rollout.promoted or candidate_is_stable(rollout, before)) and rollout.previous is not None:
                target.restore(rollout.previous)
            else:
                target.rollback()
            return not_back(rollout, target.observe())
        except ChurnError as error:
            return f"target {target.name}: {error}"

    def end(self, rollout: Rollout, decision: Decision, seen: Observation) -> Rollout:
        """Record the end; after a roll-back the registry is updated before."""
        session = self._session
        now, reason, previous = session.clock.now(), decision.reason, rollout.previous
        if rollout.phase == "rolling_back" and previous is not None:
            try:
                before = session.connections.store.before(rollout.model, previous)
                change = Change(previous, before, f"rollout {rollout.id}", now, reason)
                followed = self.registry_follows(rollout, change, seen)
            except ChurnError as error:
                return session.journal.failed(rollout, f"registry: {error}", seen.at)
            session.fault_point("back_registered")
            reason = f"{reason}; {followed}"
        fresh = replace(
            rollout.closed(now, session.counters()),
            phase=decision.ending or "promoted",
            ended=now,
            outcome=decision.reason,
            pending=0,
            trouble="",
            paused=False,
            unreached_since=None,
        )
        saved = session.journal.record(fresh, replace(decision, reason=reason, answers=None), seen)
        session.fault_point("ended")
        return saved

    def registry_follows(self, rollout: Rollout, change: Change, seen: Observation) -> str:
        """Returns what was done, as text. Raises ChurnError while the next tick is to try again: a registry
        that is unreachable for long does not delay traffic, and is corrected later (rollout/reconcile.py)."""
        try:
            return self._session.connections.registry.follow(change, _requests(seen))
        except ChurnError as error:
            if (change.at - rollout.since).total_seconds() < self._session.config.reach_timeout_s:
                raise
            return f"the registry does not follow yet: {error}"


def _requests(seen: Observation) -> dict[str, float]:
    if seen.evidence is None:
        return {}
    window = seen.evidence.current
    return {"canary_requests": window.canary.requests, "stable_requests": window.stable.requests}
