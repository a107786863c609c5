"""Rules that say at each moment whether a model is trained, for comparison on the loss matrix.

`replay.governed` has the rule that this project runs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from replay.costs import Schedule, in_service
from replay.losses import LossMatrix
from replay.past import Past


class Policy(Protocol):
    """A rule with a name for tables."""

    @property
    def name(self) -> str: ...

    def trains(self, past: Past) -> bool:
        """Whether a model is trained now. It is called once a moment, in order."""
        ...


def schedule_of(policy: Policy, matrix: LossMatrix, deploy_steps: int) -> Schedule:
    """The moments at which the policy trains; at each it sees only what is known then."""
    trained: list[int] = []
    for now in range(1, len(matrix.moments)):
        serving = in_service(trained, len(matrix.moments), deploy_steps)[: now + 1]
        if policy.trains(Past(matrix, now, tuple(trained), serving)):
            trained.append(now)
    return tuple(trained)


@dataclass(frozen=True)
class Never:
    """The first model serves for good."""

    name: str = "never"

    def trains(self, past: Past) -> bool:
        return False


@dataclass(frozen=True)
class Cadence:
    """A training every so many steps."""

    steps: int

    @property
    def name(self) -> str:
        return f"every {self.steps}"

    def trains(self, past: Past) -> bool:
        return past.now % self.steps == 0


@dataclass(frozen=True)
class Fixed:
    """A schedule that was given."""

    schedule: Schedule
    name: str = "fixed"

    def trains(self, past: Past) -> bool:
        return past.now in self.schedule


@dataclass(frozen=True)
class DriftTriggered:
    """A training whenever an input has drifted: the customary rule, PSI above 0.2 on any feature (Siddiqi,
    2006, Credit Risk Scorecards)."""

    threshold: float = 0.2
    name: str = "drift"

    def trains(self, past: Past) -> bool:
        return past.drift() > self.threshold


@dataclass(frozen=True)
class PerformanceTriggered:
    """A training when the newest known loss of the served model exceeds what a fresh model lost when it was
    trained by a share. Each model is judged by its own scores only."""

    excess: float = 0.05
    name: str = "performance"

    def trains(self, past: Past) -> bool:
        if not past.matured:
            return False
        at = past.matured[-1]
        if past.serving[at] != past.champion:
            return False  # its outcomes are not known yet
        reference = max(past.champion - past.matrix.label_lag, 0)
        return past.loss(int(past.serving[at]), at) > (1 + self.excess) * past.loss(reference, reference)


def random_schedules(trainings: int, steps: int, number: int, seed: int) -> Iterable[Schedule]:
    """Schedules with so many trainings at moments drawn without replacement, all equally likely."""
    draws = np.random.default_rng(seed)
    for _ in range(number):
        chosen = draws.choice(np.arange(1, steps), min(trainings, steps - 1), replace=False)
        yield tuple(sorted(int(moment) for moment in chosen))
