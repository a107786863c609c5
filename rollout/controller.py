"""The loop that brings a candidate to all customers, or back: observe -> decide -> act -> record.

An intention is recorded before the target is asked, and confirmed after; going back is the other way round,
traffic first. A controller may die between any two lines: the next one takes the lease, looks at the target
and goes on. Nothing here decides (rollout/decide.py does) and nothing here knows how traffic is split.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from data.errors import ChurnError
from rollout.aftermath import after_promotion
from rollout.config import RolloutConfig
from rollout.decide import Decision, Look, decide
from rollout.errors import LeaseHeld, Overtaken, RolloutError
from rollout.evidence import Arm, Evidence
from rollout.lease import new_holder
from rollout.notify import Notice, Tell, silent
from rollout.observers.observer import Observer
from rollout.registry import RegistryHooks
from rollout.rules import judge_all
from rollout.rules.rule import Rule
from rollout.state import Event, Rollout, verdict_record
from rollout.store import Store
from rollout.targets.target import Target, TargetState

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
        registry: RegistryHooks,
        notify: Tell = silent,
        faults: Callable[[str], None] = nothing,
    ) -> None:
        self._config, self._store, self._target, self._observer = config, store, target, observer
        self._rules, self._clock, self._sleep = tuple(rules), clock, sleep
        self._registry, self._notify, self._faults = registry, notify, faults
        self.holder = new_holder()
        self._known: Rollout | None = None
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
        look = self._look(rollout, now)
        self._faults("observed")
        rollout = replace(rollout, unready=self._unready(rollout, look))
        decision = decide(self._config, rollout, look, self._store.asked(id))
        self._faults("decided")
        self._known = self._carry_out(rollout, decision, look)
        # last: nothing that people look at delays the way back
        self._store.note(self._known, look_record(look, decision), holder=self.holder)
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

    def _look(self, rollout: Rollout, now: datetime) -> Look:
        """What cannot be reached is None, and why is in `trouble`. Never older than this tick."""
        target: TargetState | None = None
        evidence: Evidence | None = None
        trouble = []
        try:
            target = self._target.observe()
        except ChurnError as error:
            trouble.append(f"target {self._target.name}: {error}")
        try:
            evidence = self._observer.observe(rollout.windows, now) if rollout.windows else Evidence()
        except ChurnError as error:
            trouble.append(f"evidence: {error}")
        if evidence is not None and rollout.promoted:
            evidence = after_promotion(evidence)
        judged = rollout.phase in ("stage", "watching") and evidence is not None
        verdicts = judge_all(self._rules, evidence, self._config.alpha) if judged and evidence else ()
        return Look(now, target, evidence, tuple(verdicts), "; ".join(trouble), self._target.can_mirror)

    def _unready(self, rollout: Rollout, look: Look) -> int:
        if rollout.phase != "stage" or look.target is None or rollout.pending:
            return rollout.unready
        weight, _ = rollout.wanted(self._config)
        well = look.target.ready and look.target.weight == weight
        return 0 if well else rollout.unready + 1

    def _guard(self, now: datetime) -> None:
        """The database is out of reach: nothing goes on, but harm is still taken back, as long as nobody else
        can have the lease. The history hears of it when there is one again."""
        known = self._known
        if known is None or known.over or self._leased_until is None or now >= self._leased_until:
            return
        decision = decide(self._config, known, self._look(known, now))
        if decision.action in ("roll_back", "fall_back"):
            try:
                self._move_back(known)
            except ChurnError:
                return  # the next tick tries again

    # act and record

    def _carry_out(self, rollout: Rollout, decision: Decision, look: Look) -> Rollout:
        match decision.action:
            case "wait":
                return rollout
            case "redo":
                return self._redo(rollout, look)
            case "deploy":
                fresh = replace(rollout, deployed=True, since=look.at, pending=rollout.sequence + 1)
                return self._bring_about(self._record(fresh, decision, look), look)
            case "advance":
                stage = rollout.stage + 1 if rollout.phase == "stage" else 0
                return self._enter(replace(rollout, phase="stage", stage=stage), decision, look)
            case "correct":
                return self._enter(rollout, decision, look)
            case "promote":
                return self._enter(replace(rollout, phase="promoting", paused=False), decision, look)
            case "roll_back" | "fall_back":
                return self._go_back(rollout, decision, look)
            case "end" | "finish":
                return self._end(rollout, decision, look)
            case "pause":
                fresh = replace(rollout, paused=True, paused_since=look.at)
                return self._record(fresh, decision, look)
            case "resume":
                return self._record(self._resumed(rollout, look.at), decision, look)
            case "lose":
                return self._record(replace(rollout, unreached_since=look.at), decision, look)
            case "reach":
                return self._record(replace(rollout, unreached_since=None), decision, look)
            case _:  # refuse
                return self._record(rollout, decision, look)

    def _enter(self, rollout: Rollout, decision: Decision, look: Look) -> Rollout:
        """Another weight: its window is open, and the intention recorded, before the target is asked."""
        weight, mirror = rollout.wanted(self._config)
        try:
            counters = self._observer.mark()
        except ChurnError as error:
            return self._lost(rollout, f"evidence: {error}", look)
        fresh = rollout.opened(weight, mirror, look.at, counters)
        if decision.action != "correct":
            fresh = replace(fresh, since=look.at)
        fresh = replace(fresh, pending=rollout.sequence + 1)
        return self._bring_about(self._record(fresh, decision, look), look)

    def _redo(self, rollout: Rollout, look: Look) -> Rollout:
        if rollout.phase == "rolling_back":
            return self._move_back_again(rollout, look)
        weight, mirror = rollout.wanted(self._config)
        target = look.target
        if rollout.phase == "stage" and target and not _as_wanted(target, weight, mirror):
            # the window that was opened for it has stood under another weight until now
            try:
                counters = self._observer.mark()
            except ChurnError as error:
                return self._lost(rollout, f"evidence: {error}", look)
            fresh = replace(rollout.windows[-1], begun=look.at, before=counters)
            rollout = replace(rollout, windows=(*rollout.windows[:-1], fresh), since=look.at)
        return self._bring_about(rollout, look)

    def _bring_about(self, rollout: Rollout, look: Look) -> Rollout:
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
        except ChurnError as error:
            return self._lost(rollout, f"target {self._target.name}: {error}", look)
        self._faults(f"{step}_acted")
        if rollout.phase == "promoting":
            return self._promoted(rollout, look)
        if rollout.phase == "stage":
            rollout = self._begun(rollout)
        done = self._store.confirm(rollout, self._clock(), holder=self.holder)
        self._faults(f"{step}_confirmed")
        return done

    def _begun(self, rollout: Rollout) -> Rollout:
        """A window begins when its weight stands: what came while it was being set belongs to neither."""
        counters = self._marked()
        if counters is None:
            return rollout
        fresh = replace(rollout.windows[-1], begun=self._clock(), before=counters)
        return replace(rollout, windows=(*rollout.windows[:-1], fresh))

    def _promoted(self, rollout: Rollout, look: Look) -> Rollout:
        """Traffic is the candidate's: the registry follows, then it is watched."""
        now = self._clock()
        numbers = _requests(look)
        why = self._why(rollout)
        try:
            told = self._registry.promoted(rollout.candidate, self._who(rollout), now, why, numbers)
        except ChurnError as error:
            if (now - rollout.since).total_seconds() < self._config.reach_timeout_s:
                return self._lost(rollout, f"registry: {error}", look)
            told = f"the registry does not know: {error}"
        self._faults("promote_registered")
        fresh = replace(rollout, phase="watching", promoted=True, pending=0, since=now)
        counters = self._marked()
        if counters is not None:  # until now the old stable had its share of this window
            watch = replace(fresh.windows[-1], begun=now, before=counters)
            fresh = replace(fresh, windows=(*fresh.windows[:-1], watch))
        reason = f"all traffic is the candidate's; {told}; watched for {self._config.watch_s:g} s"
        saved = self._save(fresh, self._event(fresh, now, "watch", reason), confirms=rollout.pending)
        self._faults("promote_confirmed")
        return saved

    def _go_back(self, rollout: Rollout, decision: Decision, look: Look) -> Rollout:
        """Traffic first. Where it cannot be moved, that it has to be is recorded."""
        trouble = ""
        try:
            self._move_back(rollout)
        except ChurnError as error:
            trouble = f"; not done yet: target {self._target.name}: {error}"
        self._faults("back_acted")
        fresh = replace(
            rollout.closed(look.at, self._marked()),
            phase="rolling_back",
            ending=decision.ending or "rolled_back",
            outcome=decision.reason,
            pending=rollout.sequence + 1 if trouble else 0,
            paused=False,
            since=look.at,
        )
        decision = replace(decision, reason=decision.reason + trouble)
        saved = self._record(fresh, decision, look)
        self._faults("back_recorded")
        if trouble:
            return saved
        return self._end(saved, Decision("end", fresh.outcome, ending=fresh.ending), look)

    def _move_back(self, rollout: Rollout) -> None:
        if rollout.promoted and rollout.previous is not None:
            self._target.restore(rollout.previous)
        else:
            self._target.rollback()

    def _move_back_again(self, rollout: Rollout, look: Look) -> Rollout:
        try:
            self._move_back(rollout)
        except ChurnError:
            return rollout
        self._faults("back_acted")
        return self._store.confirm(rollout, look.at, holder=self.holder)

    def _end(self, rollout: Rollout, decision: Decision, look: Look) -> Rollout:
        now, reason = self._clock(), decision.reason
        if rollout.phase == "rolling_back":
            try:
                told = self._registry.rolled_back(
                    rollout.candidate, self._who(rollout), now, reason, _requests(look)
                )
            except ChurnError as error:
                if (now - rollout.since).total_seconds() < self._config.reach_timeout_s:
                    return self._lost(rollout, f"registry: {error}", look)
                told = f"the registry does not know: {error}"
            self._faults("back_registered")
            reason = f"{reason}; {told}"
        phase = decision.ending or "promoted"
        fresh = replace(
            rollout.closed(now, self._marked()),
            phase=phase,
            ended=now,
            outcome=decision.reason,
            pending=0,
            paused=False,
            unreached_since=None,
        )
        saved = self._record(fresh, replace(decision, reason=reason, answers=None), look)
        self._faults("ended")
        return saved

    def _lost(self, rollout: Rollout, trouble: str, look: Look) -> Rollout:
        """Something could not be reached in the middle: the next tick does it again."""
        if rollout.unreached_since is not None:
            return rollout
        fresh = replace(rollout, unreached_since=look.at)
        return self._save(fresh, self._event(fresh, look.at, "lose", trouble))

    def _resumed(self, rollout: Rollout, now: datetime) -> Rollout:
        """A stage goes on where it was paused; one that had run out of time begins again."""
        paused = rollout.paused_since or now
        before = (paused - rollout.since).total_seconds()
        spent = rollout.phase == "stage" and before >= self._config.stages[rollout.stage].max_s
        since = now if spent else rollout.since + (now - paused)
        return replace(rollout, paused=False, paused_since=None, since=since)

    def _record(self, rollout: Rollout, decision: Decision, look: Look) -> Rollout:
        intended = rollout.pending == rollout.sequence + 1
        event = self._event(rollout, look.at, decision.action, decision.reason)
        event = replace(event, done=not intended, numbers=decision.numbers, verdicts=look.verdicts)
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

    @staticmethod
    def _who(rollout: Rollout) -> str:
        return f"rollout {rollout.id}"


def _as_wanted(target: TargetState, weight: int, mirror: bool) -> bool:
    return target.weight == weight and target.mirror == mirror


def look_record(look: Look, decision: Decision) -> dict[str, Any]:
    """What `churn rollout status` and `watch` show, in whichever process they run."""
    window = look.evidence.current if look.evidence is not None else None
    return {
        "at": look.at.isoformat(),
        "target": None
        if look.target is None
        else {
            "weight": look.target.weight,
            "mirror": look.target.mirror,
            "canary": look.target.canary,
            "stable": look.target.stable,
            "ready": look.target.ready,
            "detail": look.target.detail,
        },
        "seconds": None if window is None else window.seconds,
        "stable": None if window is None else _arm(window.stable),
        "canary": None if window is None else _arm(window.canary),
        "pairs": 0 if window is None else len(window.pairs),
        "verdicts": [verdict_record(verdict) for verdict in look.verdicts],
        "action": decision.action,
        "reason": decision.reason,
        "trouble": look.trouble,
    }


def _arm(arm: Arm) -> dict[str, float | None]:
    return {
        "requests": arm.requests,
        "errors": arm.errors,
        "slow": arm.slow,
        "p99_ms": arm.p99_ms,
        "customers": arm.customers,
        "missing": arm.missing,
        "stale": arm.stale,
        "degraded": arm.degraded,
        "high_risk": arm.high_risk,
        "mean_score": float(arm.scores.mean()) if len(arm.scores) else None,
    }


def _requests(look: Look) -> dict[str, float]:
    if look.evidence is None:
        return {}
    window = look.evidence.current
    return {"canary_requests": window.canary.requests, "stable_requests": window.stable.requests}
