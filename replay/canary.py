"""A rollout in simulated time, with controller, rules and database of production.

Requests come at a constant rate; customers take turns, in an order and a division between the variants that
depend on a hash of the customer only. The answers are the scores of both programs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from replay.clock import SimulatedClock
from rollout.config import RolloutConfig
from rollout.controller import Controller
from rollout.evidence import Arm, Evidence, Window
from rollout.observers.observer import Opened
from rollout.registry import RegistryProjection
from rollout.rules import rules_of
from rollout.session import Clock, Connections
from rollout.state import Rollout
from rollout.store import Store
from rollout.targets.target import Candidate, TargetState
from training.learn.split import hashed

LONGEST_TICKS = 20_000
"""More than the longest plan takes: a controller that does not come to an end is stopped."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """The scores that both models give to the customers of a moment, [B] each."""

    users: Sequence[str]
    stable: Floats
    canary: Floats
    stable_threshold: float
    canary_threshold: float


class InProcessTarget:
    """A target that splits simulated traffic."""

    name = "replay"
    can_mirror = True

    def __init__(self, stable: Candidate | None) -> None:
        self._stable = stable
        self._canary: Candidate | None = None
        self._weight, self._mirror = 0, False

    def observe(self) -> TargetState:
        canary = None if self._canary is None else self._canary.sha256
        stable = None if self._stable is None else self._stable.sha256
        return TargetState(self._weight, self._mirror, canary, stable, ready=canary is not None)

    def serving(self) -> Candidate | None:
        return self._stable

    def deploy(self, candidate: Candidate) -> None:
        self._canary = candidate

    def set_weight(self, percent: int, mirror: bool = False) -> None:
        self._weight, self._mirror = percent, mirror

    def promote(self, candidate: Candidate) -> None:
        self._stable, self._canary, self._weight, self._mirror = candidate, None, 0, False

    def rollback(self) -> None:
        self._canary, self._weight, self._mirror = None, 0, False

    def restore(self, candidate: Candidate) -> None:
        self.promote(candidate)


class AnsweredRequests:
    """An observer of simulated requests: the evidence of a window is what was asked in its time."""

    def __init__(self, answers: Answers, began: datetime, requests_per_s: float, seed: int) -> None:
        users = pd.Series(list(answers.users))
        order = np.argsort(hashed(users, seed, "order of requests"), kind="stable")
        self._stable, self._canary = answers.stable[order], answers.canary[order]
        self._share = 100 * hashed(users, seed, "variant")[order]
        self._thresholds = answers.stable_threshold, answers.canary_threshold
        self._began, self._rate = began, requests_per_s

    def mark(self) -> dict[str, float]:
        """No counters: the requests of a window follow from its times."""
        return {}

    def observe(self, windows: Sequence[Opened], now: datetime) -> Evidence:
        """Each customer counts once in a window, at the first request."""
        return Evidence(tuple(self._window(window, now) for window in windows))

    def _window(self, window: Opened, now: datetime) -> Window:
        end = window.ended or now
        first, last = (int((at - self._began).total_seconds() * self._rate) for at in (window.begun, end))
        asked = np.arange(first, max(first, last)) % len(self._share)
        distinct = asked[: len(self._share)]  # customers take turns, so no one is twice among these
        to_canary = self._share < window.weight
        stable = distinct if window.mirror else distinct[~to_canary[distinct]]
        canary = distinct if window.mirror else distinct[to_canary[distinct]]
        requests = len(asked) if window.mirror else int(to_canary[asked].sum())
        return Window(
            weight=window.weight,
            mirror=window.mirror,
            seconds=(end - window.begun).total_seconds(),
            stable=_arm(
                self._stable[stable], self._thresholds[0], len(asked) - requests * (not window.mirror)
            ),
            canary=_arm(self._canary[canary], self._thresholds[1], requests),
            pairs=self._canary[canary] - self._stable[canary] if window.mirror else np.empty(0),
        )


def _arm(scores: Floats, threshold: float, requests: int) -> Arm:
    risky = int((scores > threshold).sum())
    return Arm(requests=requests, failing=0, customers=len(scores), high_risk=risky, scores=scores)


@dataclass(frozen=True)
class Canaries:
    """Brings candidates to customers, or back, in simulated time."""

    store: Store
    config: RolloutConfig
    registry: RegistryProjection
    requests_per_s: float
    seed: int

    def control(
        self, rollout: Rollout, stable: Candidate | None, answers: Answers, clock: SimulatedClock
    ) -> Rollout:
        """Control `rollout` to its end; returns its last state. `stable` serves at its beginning."""
        config = rollout.planned(self.config)
        observer = AnsweredRequests(answers, clock.now(), self.requests_per_s, self.seed)
        target = InProcessTarget(stable)
        ticks = 0

        def sleep(seconds: float) -> None:
            nonlocal ticks
            ticks += 1
            clock.sleep(seconds)

        controller = Controller(
            config,
            rules_of(config),
            Connections(self.store, target, observer, self.registry),
            Clock(clock.now, sleep),
            holder="replay",
        )
        return controller.run(rollout.id, stop=lambda: ticks > LONGEST_TICKS)
