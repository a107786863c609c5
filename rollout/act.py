"""Act: carries out a decision at the target.

An intention is recorded before the target is changed, and confirmed after. Going back is the other way round
(rollout/ending.py). Every action can be repeated, so that a controller that takes over finishes it.
"""

from dataclasses import replace
from datetime import datetime

from core.errors import ChurnError
from rollout.ending import Ending
from rollout.session import Session
from rollout.situation import Decision, Observation
from rollout.state import Change, Rollout
from rollout.targets.target import NotYet


class Actions:
    def __init__(self, session: Session) -> None:
        self._session, self._ending = session, Ending(session)

    def carry_out(self, rollout: Rollout, decision: Decision, seen: Observation) -> Rollout:
        """Returns the rollout after it."""
        record = self._session.journal.record
        match decision.action:
            case "wait":
                return rollout
            case "redo" if rollout.phase == "rolling_back":
                return self._ending.go_back_again(rollout, seen)
            case "redo":
                return self._bring_about(rollout, seen)
            case "deploy":
                fresh = replace(rollout, deployed=True, since=seen.at, pending=rollout.sequence + 1)
                return self._bring_about(record(fresh, decision, seen), seen)
            case "advance":
                stage = rollout.stage + 1 if rollout.phase == "stage" else 0
                return self._enter(rollout, replace(rollout, phase="stage", stage=stage), decision, seen)
            case "correct":
                return self._enter(rollout, rollout, decision, seen)
            case "promote":
                fresh = replace(rollout, phase="promoting", paused=False)
                return self._enter(rollout, fresh, decision, seen)
            case "roll_back" | "fall_back":
                return self._ending.go_back(rollout, decision, seen)
            case "end" | "finish":
                return self._ending.end(rollout, decision, seen)
            case "pause":
                return record(replace(rollout, paused=True, paused_since=seen.at), decision, seen)
            case "resume":
                return record(self._resumed(rollout, seen.at), decision, seen)
            case "unreachable":
                return record(replace(rollout, unreached_since=seen.at), decision, seen)
            case "reachable":
                return record(replace(rollout, unreached_since=None), decision, seen)
            case "stuck":
                return record(replace(rollout, stuck=True), decision, seen)
            case _:  # refuse
                return record(rollout, decision, seen)

    def _enter(self, before: Rollout, rollout: Rollout, decision: Decision, seen: Observation) -> Rollout:
        """Set another weight: before the target is changed, its window is opened and the intention
        recorded. While there is no evidence, the rollout stays as it was `before`: the weight of a stage
        that was entered without an intention would look like one that somebody has changed."""
        session = self._session
        weight, mirror = rollout.wanted(session.config)
        try:
            counters = session.connections.observer.mark()
        except ChurnError as error:
            return session.journal.failed(before, f"evidence: {error}", seen.at)
        fresh = rollout.opened(weight, mirror, seen.at, counters)
        if decision.action != "correct":
            fresh = replace(fresh, since=seen.at)
        fresh = replace(fresh, pending=rollout.sequence + 1, trouble="", stuck=False)
        return self._bring_about(session.journal.record(fresh, decision, seen), seen)

    def _bring_about(self, rollout: Rollout, seen: Observation) -> Rollout:
        """Make the target as the state requires. It is repeated until it is confirmed."""
        session, target = self._session, self._session.connections.target
        session.lease.take(rollout.model, session.clock.now())
        step = {"starting": "deploy", "stage": "weight", "promoting": "promote"}[rollout.phase]
        session.fault_point(f"{step}_intended")
        try:
            if rollout.phase == "starting":
                target.deploy(rollout.candidate)
            elif rollout.phase == "stage":
                target.set_weight(*rollout.wanted(session.config))
            else:
                target.promote(rollout.candidate)
        except NotYet as error:
            return replace(rollout, trouble=str(error))
        except ChurnError as error:
            return session.journal.failed(rollout, f"target {target.name}: {error}", seen.at)
        session.fault_point(f"{step}_acted")
        if rollout.phase == "promoting":
            return self._promoted(rollout, seen)
        if rollout.phase == "stage":
            try:
                rollout = self._begun(rollout)
            except ChurnError as error:
                return session.journal.failed(rollout, f"evidence: {error}", seen.at)
        done = session.journal.confirm(rollout, session.clock.now())
        session.fault_point(f"{step}_confirmed")
        return done

    def _begun(self, rollout: Rollout) -> Rollout:
        """A window begins when its weight is set; requests while it was being set belong to no window. Its
        stage begins then too, unless the weight of the same stage was corrected."""
        now, counters = self._session.clock.now(), self._session.connections.observer.mark()
        *before, last = rollout.windows
        again = bool(before) and (before[-1].weight, before[-1].mirror) == (last.weight, last.mirror)
        fresh = replace(last, begun=now, before=counters)
        return replace(rollout, windows=(*before, fresh), since=rollout.since if again else now)

    def _promoted(self, rollout: Rollout, seen: Observation) -> Rollout:
        """All traffic is the candidate's: the registry is updated, and the watch begins."""
        session, now = self._session, self._session.clock.now()
        try:
            followed = self._ending.registry_follows(
                rollout, Change(rollout.candidate, rollout.previous, f"rollout {rollout.id}", now,
                                self._why_promoted(rollout)), seen
            )  # fmt: skip
        except ChurnError as error:
            return session.journal.failed(rollout, f"registry: {error}", seen.at)
        session.fault_point("promote_registered")
        fresh = replace(
            rollout, phase="watching", promoted=True, pending=0, trouble="", stuck=False, since=now
        )
        counters = session.counters()
        if counters is not None:  # until now, the former stable had a share of this window
            watch = replace(fresh.windows[-1], begun=now, before=counters)
            fresh = replace(fresh, windows=(*fresh.windows[:-1], watch))
        reason = f"all traffic is the candidate's; {followed}; watched for {session.config.watch_s:g} s"
        event = session.journal.event(fresh, now, "watch", reason)
        saved = session.journal.save(fresh, event, confirms=rollout.pending)
        session.fault_point("promote_confirmed")
        return saved

    def _resumed(self, rollout: Rollout, now: datetime) -> Rollout:
        """A stage continues where it was paused; one whose time was over begins again."""
        paused = rollout.paused_since or now
        before = (paused - rollout.since).total_seconds()
        spent = rollout.phase == "stage" and before >= self._session.config.stages[rollout.stage].max_s
        since = now if spent else rollout.since + (now - paused)
        return replace(rollout, paused=False, paused_since=None, since=since)

    def _why_promoted(self, rollout: Rollout) -> str:
        events = self._session.connections.store.history(rollout.id)
        return next((e.reason for e in reversed(events) if e.action == "promote"), rollout.reason)
