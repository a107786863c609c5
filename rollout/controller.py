"""The loop that brings a candidate to all customers, or back: observe -> decide -> act -> record.

An intention is recorded before the target is asked, and confirmed after; going back is the other way round,
traffic first, and it is recorded as done when the target shows that it is. A controller may die between any
two lines: the next one takes the lease, looks at the target and goes on. Nothing here decides
(rollout/decide.py does) and nothing here knows how traffic is split.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from core.errors import ChurnError
from rollout.aftermath import after_promotion
from rollout.config import RolloutConfig
from rollout.decide import decide
from rollout.errors import LeaseHeld, Overtaken, RolloutError
from rollout.evidence import Evidence
from rollout.lease import new_holder, renewing
from rollout.notify import Notice, Tell, silent
from rollout.observers.observer import Observer
from rollout.observers.recorded import Recorded
from rollout.records import observation_record
from rollout.registry import RegistryProjection
from rollout.rules import judge_all
from rollout.rules.rule import Rule
from rollout.situation import Decision, Observation, candidate_is_stable, not_back
from rollout.state import Event, Rollout
from rollout.store import Store
from rollout.targets.target import Candidate, NotYet, Target, TargetState

FAULT_POINTS = (
    *("leased", "observed", "decided"),
    *("deploy_intended", "deploy_acted", "deploy_confirmed"),
    *("weight_intended", "weight_acted", "weight_confirmed"),
    *("promote_intended", "promote_acted", "promote_registered", "promote_confirmed"),
    *("back_acted", "back_recorded", "back_registered", "ended"),
)
"""Where a test kills a controller: between any two effects that outlive it."""


def nothing(point: str) -> None:
    """No fault."""


class Controller:
    """Of one model's rollouts. `rules` are those of the plan; `clock` gives aware UTC times."""

    def __init__(
        self,
        config: RolloutConfig,
        store: Store,
        target: Target,
        observer: Observer,
        rules: Sequence[Rule],
        clock: Callable[[], datetime],
        sleep: Callable[[float], None],
        registry: RegistryProjection,
        notify: Tell = silent,
        faults: Callable[[str], None] = nothing,
    ) -> None:
        self._config, self._store, self._target, self._observer = config, store, target, observer
        self._rules, self._clock, self._sleep = tuple(rules), clock, sleep
        self._registry, self._notify, self._faults = registry, notify, faults
        self.holder = new_holder()
        self._known: Rollout | None = None
        self._recorded: dict[str, Recorded] = {}
        self._leased_until: datetime | None = None

    def run(self, id: str, stop: Callable[[], bool] = lambda: False) -> Rollout:
        """Until the rollout has ended, or `stop` says so; returns it as it then stands.

        While another controller has it, or the database is out of reach, this one waits. Raises RolloutError
        for a rollout that does not exist.
        """
        rollout = self._store.load(id)
        while not rollout.over and not stop():
            try:
                rollout = self.tick(id)
            except RolloutError:
                self._sleep(self._config.tick_s)
                continue
            if not rollout.over:
                self._sleep(self._config.tick_s)
        if self._known is not None:
            with suppress(RolloutError):  # it expires by itself
                self._store.release_lease(rollout.model, self.holder, self._clock())
        return rollout

    def tick(self, id: str) -> Rollout:
        """One look and what follows from it. Returns the rollout as it then stands.

        Raises LeaseHeld while another controller has it, Overtaken when one has taken it in the meantime, and
        RolloutError when the database is out of reach: nothing has been done then, but for a roll-back that
        could not wait for the database. The next tick may be tried as ever.
        """
        now = self._clock()
        try:
            rollout = self._leased(id, now)
        except (LeaseHeld, Overtaken):
            raise
        except RolloutError:
            self._guard(now)
            raise
        if rollout.over:
            return rollout
        # waits for a target, a registry and evidence may add up to more than the lease
        longest_s = 2 * self._config.ready_timeout_s
        with renewing(lambda: self._take(rollout, self._clock()), self._config.lease_s / 3, longest_s):
            seen = self._observe(rollout, now)
            self._faults("observed")
            rollout = replace(rollout, unready_since=self._unready_since(rollout, seen))
            decision = decide(self._config, rollout, seen, self._store.asked(id))
            self._faults("decided")
            self._known = self._carry_out(rollout, decision, seen)
            # last: nothing that people look at delays the way back
            self._save_observation(self._known, seen, decision)
        return self._known

    # observe

    def _leased(self, id: str, now: datetime) -> Rollout:
        rollout = self._store.load(id)
        if rollout.over:
            return rollout
        self._take(rollout, now)
        self._faults("leased")
        if rollout.controller == self.holder:
            return rollout
        rollout = self._store.load(id)  # the last holder may have written until this moment
        ours = replace(rollout, controller=self.holder)
        if not rollout.controller or rollout.over:
            return ours
        reason = f"{rollout.controller} is gone; {self.holder} goes on"
        return self._save(ours, self._event(ours, now, "take_over", reason))

    def _take(self, rollout: Rollout, now: datetime) -> None:
        self._store.take_lease(rollout.model, self.holder, now)
        self._leased_until = now + timedelta(seconds=self._config.lease_s)

    def _observe(self, rollout: Rollout, now: datetime) -> Observation:
        """What cannot be reached is None, and why is in `trouble`. Never older than this tick."""
        target: TargetState | None = None
        evidence: Evidence | None = None
        trouble = []
        try:
            target = self._target.observe()
        except ChurnError as error:
            trouble.append(f"target {self._target.name}: {error}")
        try:
            evidence = self._counts(rollout).observe(rollout.windows, now) if rollout.windows else Evidence()
        except ChurnError as error:
            trouble.append(f"evidence: {error}")
        if evidence is not None and rollout.promoted:
            evidence = after_promotion(evidence)
        judged = rollout.phase in ("stage", "promoting", "watching") and evidence is not None
        verdicts = judge_all(self._rules, evidence, self._config.alpha) if judged and evidence else ()
        return Observation(
            now, target, evidence, tuple(verdicts), "; ".join(trouble), self._target.can_mirror
        )

    def _unready_since(self, rollout: Rollout, seen: Observation) -> datetime | None:
        if rollout.phase != "stage" or seen.target is None or rollout.pending:
            return rollout.unready_since
        weight, _ = rollout.wanted(self._config)
        well = seen.target.ready and seen.target.weight == weight
        return None if well else rollout.unready_since or seen.at

    def _counts(self, rollout: Rollout) -> Recorded:
        """What was counted at each look of this rollout, by whichever controller."""
        if rollout.id not in self._recorded:
            before = self._store.observations(rollout.id)
            self._recorded[rollout.id] = Recorded(self._observer, self._config, before)
        return self._recorded[rollout.id]

    def _save_observation(self, rollout: Rollout, seen: Observation, decision: Decision) -> None:
        """Counts are saved where they have changed: a rollout that only waits adds nothing."""
        recorded = self._recorded.get(rollout.id)
        record = observation_record(seen, decision, rollout.trouble)
        counts = {} if recorded is None else recorded.unsaved()
        self._store.save_observation(rollout, record, counts, holder=self.holder)
        if recorded is not None:
            recorded.saved()

    def _guard(self, now: datetime) -> None:
        """The database is out of reach: nothing goes on, but harm is still taken back, as long as nobody else
        can have the lease. It is in the history when there is one again."""
        known = self._known
        if known is None or known.over or self._leased_until is None or now >= self._leased_until:
            return
        decision = decide(self._config, known, self._observe(known, now))
        if decision.action in ("roll_back", "fall_back"):
            self._move_back(known)  # the next tick tries again what is missing

    # act and record

    def _carry_out(self, rollout: Rollout, decision: Decision, seen: Observation) -> Rollout:
        match decision.action:
            case "wait":
                return rollout
            case "redo":
                return self._redo(rollout, seen)
            case "deploy":
                fresh = replace(rollout, deployed=True, since=seen.at, pending=rollout.sequence + 1)
                return self._bring_about(self._record(fresh, decision, seen), seen)
            case "advance":
                stage = rollout.stage + 1 if rollout.phase == "stage" else 0
                return self._enter(replace(rollout, phase="stage", stage=stage), decision, seen)
            case "correct":
                return self._enter(rollout, decision, seen)
            case "promote":
                return self._enter(replace(rollout, phase="promoting", paused=False), decision, seen)
            case "roll_back" | "fall_back":
                return self._go_back(rollout, decision, seen)
            case "end" | "finish":
                return self._end(rollout, decision, seen)
            case "pause":
                fresh = replace(rollout, paused=True, paused_since=seen.at)
                return self._record(fresh, decision, seen)
            case "resume":
                return self._record(self._resumed(rollout, seen.at), decision, seen)
            case "unreachable":
                return self._record(replace(rollout, unreached_since=seen.at), decision, seen)
            case "reachable":
                return self._record(replace(rollout, unreached_since=None), decision, seen)
            case "stuck":
                return self._record(replace(rollout, stuck=True), decision, seen)
            case _:  # refuse
                return self._record(rollout, decision, seen)

    def _enter(self, rollout: Rollout, decision: Decision, seen: Observation) -> Rollout:
        """Another weight: its window is open, and the intention recorded, before the target is asked."""
        weight, mirror = rollout.wanted(self._config)
        try:
            counters = self._observer.mark()
        except ChurnError as error:
            return self._failed(rollout, f"evidence: {error}", seen)
        fresh = rollout.opened(weight, mirror, seen.at, counters)
        if decision.action != "correct":
            fresh = replace(fresh, since=seen.at)
        fresh = replace(fresh, pending=rollout.sequence + 1, trouble="", stuck=False)
        return self._bring_about(self._record(fresh, decision, seen), seen)

    def _redo(self, rollout: Rollout, seen: Observation) -> Rollout:
        return (
            self._go_back_again(rollout, seen)
            if rollout.phase == "rolling_back"
            else (self._bring_about(rollout, seen))
        )

    def _bring_about(self, rollout: Rollout, seen: Observation) -> Rollout:
        """Ask the target for what the state says. May be done again, until it is confirmed."""
        self._take(rollout, self._clock())
        step = {"starting": "deploy", "stage": "weight", "promoting": "promote"}[rollout.phase]
        self._faults(f"{step}_intended")
        try:
            if rollout.phase == "starting":
                self._target.deploy(rollout.candidate)
            elif rollout.phase == "stage":
                self._target.set_weight(*rollout.wanted(self._config))
            else:
                self._target.promote(rollout.candidate)
        except NotYet as error:
            return replace(rollout, trouble=str(error))
        except ChurnError as error:
            return self._failed(rollout, f"target {self._target.name}: {error}", seen)
        self._faults(f"{step}_acted")
        if rollout.phase == "promoting":
            return self._promoted(rollout, seen)
        if rollout.phase == "stage":
            try:
                rollout = self._begun(rollout)
            except ChurnError as error:
                return self._failed(rollout, f"evidence: {error}", seen)
        done = self._store.confirm(rollout, self._clock(), holder=self.holder)
        self._faults(f"{step}_confirmed")
        return done

    def _begun(self, rollout: Rollout) -> Rollout:
        """A window begins when its weight stands: what came while it was being set belongs to neither. So
        does its stage, unless it is the same stage again, whose weight was set right."""
        now, counters = self._clock(), self._observer.mark()
        *before, last = rollout.windows
        again = bool(before) and (before[-1].weight, before[-1].mirror) == (last.weight, last.mirror)
        fresh = replace(last, begun=now, before=counters)
        since = rollout.since if again else now
        return replace(rollout, windows=(*before, fresh), since=since)

    def _promoted(self, rollout: Rollout, seen: Observation) -> Rollout:
        """Traffic is the candidate's: the registry follows, then it is watched."""
        now = self._clock()
        stable, previous = rollout.candidate, rollout.previous
        try:
            followed = self._registry_follows(rollout, stable, previous, self._why(rollout), seen)
        except ChurnError as error:
            return self._failed(rollout, f"registry: {error}", seen)
        self._faults("promote_registered")
        fresh = replace(
            rollout, phase="watching", promoted=True, pending=0, trouble="", stuck=False, since=now
        )
        counters = self._marked()
        if counters is not None:  # until now the old stable had its share of this window
            watch = replace(fresh.windows[-1], begun=now, before=counters)
            fresh = replace(fresh, windows=(*fresh.windows[:-1], watch))
        reason = f"all traffic is the candidate's; {followed}; watched for {self._config.watch_s:g} s"
        saved = self._save(fresh, self._event(fresh, now, "watch", reason), confirms=rollout.pending)
        self._faults("promote_confirmed")
        return saved

    def _go_back(self, rollout: Rollout, decision: Decision, seen: Observation) -> Rollout:
        """Traffic first. What the target does not show as done is recorded as to be done."""
        try:
            self._take(rollout, self._clock())
        except LeaseHeld:
            raise
        except RolloutError:
            pass  # a database that is away does not hold the way back up
        trouble = self._move_back(rollout)
        self._faults("back_acted")
        fresh = replace(
            rollout.closed(seen.at, self._marked()),
            phase="rolling_back",
            ending=decision.ending or "rolled_back",
            outcome=decision.reason,
            pending=rollout.sequence + 1 if trouble else 0,
            trouble=trouble,
            stuck=False,
            paused=False,
            since=seen.at,
            # what has become stable meanwhile is taken back as such from here on
            promoted=rollout.promoted or decision.action == "fall_back",
        )
        if trouble:
            decision = replace(decision, reason=f"{decision.reason}; not done yet: {trouble}")
        saved = self._record(fresh, decision, seen)
        self._faults("back_recorded")
        if trouble:
            return saved
        return self._end(saved, Decision("end", fresh.outcome, ending=fresh.ending), seen)

    def _go_back_again(self, rollout: Rollout, seen: Observation) -> Rollout:
        trouble = self._move_back(rollout)
        if trouble:
            return replace(rollout, trouble=trouble)
        self._faults("back_acted")
        return self._store.confirm(rollout, seen.at, holder=self.holder)

    def _move_back(self, rollout: Rollout) -> str:
        """What is missing after it, by what the target shows then; empty: customers have the stable one."""
        name, before = self._target.name, None
        with suppress(ChurnError):
            before = self._target.observe()
        try:
            if (rollout.promoted or candidate_is_stable(rollout, before)) and rollout.previous is not None:
                self._target.restore(rollout.previous)
            else:
                self._target.rollback()
            return not_back(rollout, self._target.observe())
        except ChurnError as error:
            return f"target {name}: {error}"

    def _end(self, rollout: Rollout, decision: Decision, seen: Observation) -> Rollout:
        now, reason = self._clock(), decision.reason
        if rollout.phase == "rolling_back" and rollout.previous is not None:
            try:
                before = self._store.before(rollout.model, rollout.previous)
                followed = self._registry_follows(rollout, rollout.previous, before, reason, seen)
            except ChurnError as error:
                return self._failed(rollout, f"registry: {error}", seen)
            self._faults("back_registered")
            reason = f"{reason}; {followed}"
        phase = decision.ending or "promoted"
        fresh = replace(
            rollout.closed(now, self._marked()),
            phase=phase,
            ended=now,
            outcome=decision.reason,
            pending=0,
            trouble="",
            paused=False,
            unreached_since=None,
        )
        saved = self._record(fresh, replace(decision, reason=reason, answers=None), seen)
        self._faults("ended")
        return saved

    def _registry_follows(
        self, rollout: Rollout, stable: Candidate, previous: Candidate | None, why: str, seen: Observation
    ) -> str:
        """What was done, in words. Raises ChurnError while it is to be tried again. A registry that is away
        for long does not hold customers' traffic up: it is mended when it is back (rollout/reconcile.py)."""
        now = self._clock()
        who = f"rollout {rollout.id}"
        try:
            return self._registry.follow(stable, previous, who, now, why, _requests(seen))
        except ChurnError as error:
            if (now - rollout.since).total_seconds() < self._config.reach_timeout_s:
                raise
            return f"the registry does not follow yet: {error}"

    def _failed(self, rollout: Rollout, trouble: str, seen: Observation) -> Rollout:
        """Something could not be reached in the middle: the next tick does it again."""
        fresh = replace(rollout, trouble=trouble)
        if rollout.unreached_since is not None:
            return fresh
        fresh = replace(fresh, unreached_since=seen.at)
        return self._save(fresh, self._event(fresh, seen.at, "unreachable", trouble))

    def _resumed(self, rollout: Rollout, now: datetime) -> Rollout:
        """A stage goes on where it was paused; one that had run out of time begins again."""
        paused = rollout.paused_since or now
        before = (paused - rollout.since).total_seconds()
        spent = rollout.phase == "stage" and before >= self._config.stages[rollout.stage].max_s
        since = now if spent else rollout.since + (now - paused)
        return replace(rollout, paused=False, paused_since=None, since=since)

    def _record(self, rollout: Rollout, decision: Decision, seen: Observation) -> Rollout:
        intended = rollout.pending == rollout.sequence + 1
        event = self._event(rollout, seen.at, decision.action, decision.reason)
        event = replace(event, done=not intended, numbers=decision.numbers, verdicts=seen.verdicts)
        if decision.answers is not None:
            event = replace(event, who=decision.answers.who)
        return self._save(rollout, event, answers=decision.answers)

    def _save(self, rollout: Rollout, event: Event, **more: Any) -> Rollout:
        saved = self._store.save(rollout, event, holder=self.holder, **more)
        self._notify(Notice(saved, replace(event, sequence=saved.sequence)))
        return saved

    def _event(self, rollout: Rollout, at: datetime, action: Any, reason: str) -> Event:
        weight, mirror = rollout.wanted(self._config)
        return Event(
            at, action, reason, weight=weight, mirror=mirror, phase=rollout.phase, stage=rollout.stage,
            who=self.holder,
        )  # fmt: skip

    def _marked(self) -> dict[str, float] | None:
        """Counters at the end of the last window; None where they cannot be had any more."""
        try:
            return self._observer.mark()
        except ChurnError:
            return None

    def _why(self, rollout: Rollout) -> str:
        promoted = [e for e in self._store.history(rollout.id) if e.action == "promote"]
        return promoted[-1].reason if promoted else rollout.reason


def _requests(seen: Observation) -> dict[str, float]:
    if seen.evidence is None:
        return {}
    window = seen.evidence.current
    return {"canary_requests": window.canary.requests, "stable_requests": window.stable.requests}
