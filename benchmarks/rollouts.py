"""Thousands of rollouts at once, request by request: the error rule on failures of different customers.

The plan's windows follow each other; between two looks the canary answers `step` requests and stable what its
weight brings meanwhile, a random number. What the rule finds at weight 100 takes time, not requests, and is
in benchmarks/moments.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rollout.config import RolloutConfig, Stage
from rollout.rules.events import BEFORE_AFTER_SHARE
from rollout.statistics.e_values import mean_evidence
from rollout.statistics.event_rates import RATIOS, Counts, over_ratios, window_evidence

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """Totals of the present window; arrays over rollouts."""

    stage: Stage
    done: int
    """Canary requests so far, over all windows."""
    last: bool
    """Of this window."""
    canary: int
    canary_errors: Array
    stable: Array
    stable_errors: Array


def stable_meanwhile(stage: Stage, step: int, rollouts: int, random: np.random.Generator) -> Array:
    """Requests that stable answers while the canary answers `step`."""
    if stage.mirror:
        return np.full(rollouts, float(step))
    if stage.weight == 100:
        return np.zeros(rollouts)
    return random.negative_binomial(step, stage.weight / 100, rollouts).astype(np.float64)


def error_looks(
    stages: Sequence[Stage], rates: tuple[float, float], step: int, rollouts: int, seed: int
) -> Iterator[Look]:
    """`rates`: of errors, on the canary and on stable."""
    random = np.random.default_rng(seed)
    done = 0
    for stage in stages:
        canary_errors, stable, stable_errors = np.zeros((3, rollouts))
        for total in range(step, stage.min_requests + 1, step):
            more = stable_meanwhile(stage, step, rollouts, random)
            canary_errors = canary_errors + random.binomial(step, rates[0], rollouts)
            stable = stable + more
            stable_errors = stable_errors + random.binomial(more.astype(np.int64), rates[1])
            last = total + step > stage.min_requests
            yield Look(stage, done + total, last, total, canary_errors, stable, stable_errors)
        done += stage.min_requests // step * step


class Split:
    """rollout/rules/error_rate.py, `split_evidence`, over many rollouts: windows add up."""

    def __init__(self, rollouts: int, tolerance: float) -> None:
        self.tolerance = tolerance
        self.past = np.zeros((rollouts, len(RATIOS)))

    def look(self, mirror: bool, last: bool, counts: Counts) -> Array:
        """[rollouts] log e-values."""
        evidence = window_evidence(counts, self.tolerance)
        together = self.past + (np.logaddexp(evidence, 0) - np.log(2) if mirror else evidence)
        if last:
            self.past = together
        return over_ratios(together)


def first_crossing(evidence: Array, needed: float, done: float, found: Array) -> Array:
    """`found`: requests (or seconds) until the first crossing, inf where there was none so far."""
    return np.where(np.isinf(found) & (evidence >= needed), done, found)


def error_rule_alone(
    config: RolloutConfig, rates: tuple[float, float], alpha: float, step: int, rollouts: int, seed: int
) -> Array:
    """Canary requests until the error rule rolls back; inf: never within the plan."""
    assert config.rules.error_rate
    rule, found = Split(rollouts, config.rules.error_rate.tolerance), np.full(rollouts, np.inf)
    nothing = np.zeros(rollouts)
    for look in error_looks(config.stages, rates, step, rollouts, seed):
        share = 0.5 if look.stage.mirror else look.stage.weight / 100
        total = look.canary + look.stable
        counts = Counts(total * share, look.canary_errors, total * (1 - share), look.stable_errors)
        if look.stage.weight < 100:
            evidence = rule.look(look.stage.mirror, look.last, counts)
        both = mean_evidence([evidence, nothing], [1 - BEFORE_AFTER_SHARE, BEFORE_AFTER_SHARE])
        found = first_crossing(both, -np.log(alpha), look.done, found)
    return found
