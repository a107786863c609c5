"""Thousands of rollouts at once: what each variant's counters and scores say after every batch of requests.

Simulated, all rollouts of one kind side by side in arrays. The plan's windows follow each other; between two
looks the canary answers `step` requests and stable what its weight brings meanwhile, a random number.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rollout.bounded import STAKES, SURE, Histogram, excess_mean
from rollout.config import RolloutConfig, Stage
from rollout.rules.events import ALONE
from rollout.sequential import RATIOS, Counts, log_mean, mean_evidence, over_ratios, window_evidence

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
        for asked in range(step, stage.min_requests + 1, step):
            more = stable_meanwhile(stage, step, rollouts, random)
            canary_errors = canary_errors + random.binomial(step, rates[0], rollouts)
            stable = stable + more
            stable_errors = stable_errors + random.binomial(more.astype(np.int64), rates[1])
            last = asked + step > stage.min_requests
            yield Look(stage, done + asked, last, asked, canary_errors, stable, stable_errors)
        done += stage.min_requests // step * step


class CountRule:
    """rollout/rules/events.py over many rollouts: log e-values after each look, windows adding up.

    At weight 100 and before its end, a bound that is below `needed` stands for what is smaller yet.
    """

    def __init__(self, rollouts: int, tolerance: float, needed: float) -> None:
        self.tolerance, self.needed = tolerance, needed
        self.past = np.zeros((rollouts, len(RATIOS)))
        self.before = np.zeros((2, rollouts))
        """Stable's requests and events in the windows that are over."""
        self.since = np.zeros(rollouts)

    def look(self, weight: int, last: bool, counts: Counts) -> Array:
        canary, events, stable, stable_events = (
            np.broadcast_to(np.asarray(of, dtype=np.float64), self.since.shape)
            for of in (counts.canary, counts.canary_events, counts.stable, counts.stable_events)
        )
        evidence = self.past + window_evidence(counts, self.tolerance)
        before = self.before + np.stack([stable, stable_events])
        if weight == 100:
            values = np.array([0.0, 1.0])
            alone = Histogram(values, np.stack([canary - events, events], axis=-1))
            beside = Histogram(values, np.stack([before[0] - before[1], before[1]], axis=-1))
            self.since = _at_least_smallest(alone, beside, self.tolerance)
            crossed = mean_evidence([over_ratios(evidence), self.since], [1 - ALONE, ALONE]) >= self.needed
            exact = crossed | last
            if exact.any():
                self.since[exact] = excess_mean(_rows(alone, exact), _rows(beside, exact), self.tolerance)
        if last:
            self.past, self.before = evidence, before
        return mean_evidence([over_ratios(evidence), self.since], [1 - ALONE, ALONE])


class MeanRule:
    """rollout/rules/shifts.py over many rollouts: each side is a comparison "at most so much above";
    `combine` makes one log e-value of theirs.

    A look first takes the product of capitals at one mean, which is never less than the smallest product over
    all. Where even that is below `needed`, nothing has been found; the rest is computed exactly, and all of
    them at a window's end.
    """

    def __init__(
        self, rollouts: int, tolerances: Sequence[float], needed: float, combine: Callable[[Array], Array]
    ) -> None:
        self.tolerances, self.needed, self.combine = tolerances, needed, combine
        self.past = np.zeros((len(tolerances), rollouts))

    def look(
        self, last: bool, sides: Sequence[tuple[Histogram, Histogram]], judged: Array | bool = True
    ) -> Array:
        """`judged`: rollouts in which this window has enough data to have a say."""
        exact = np.full(self.past.shape[1], last)
        now = np.zeros_like(self.past)
        if not last:
            now = self._each(sides, _at_least_smallest)
            exact = self.combine(self.past + np.where(judged, now, 0.0)) >= self.needed
        if exact.any():
            chosen = [(_rows(a, exact), _rows(b, exact)) for a, b in sides]
            now[:, exact] = self._each(chosen, excess_mean)
        together = self.past + np.where(judged, now, 0.0)
        if last:
            self.past = together
        return self.combine(together)

    def add(self, last: bool, evidence: Array) -> Array:
        """A window judged in another way: log e-values of each side."""
        together = self.past + hedged(evidence)
        if last:
            self.past = together
        return self.combine(together)

    def _each(
        self,
        sides: Sequence[tuple[Histogram, Histogram]],
        compare: Callable[[Histogram, Histogram, float], Array],
    ) -> Array:
        pairs = zip(sides, self.tolerances, strict=True)
        return np.stack([hedged(compare(a, b, tolerance)) for (a, b), tolerance in pairs])


def hedged(log_e: Array) -> Array:
    return np.asarray(np.logaddexp(log_e, 0.0) - np.log(2))


def _rows(data: Histogram, chosen: NDArray[np.bool_]) -> Histogram:
    return Histogram(data.values, data.counts[chosen])


def _at_least_smallest(canary: Histogram, stable: Histogram, tolerance: float) -> Array:
    mean = np.nan_to_num(stable.mean)
    return _capital(canary, mean + tolerance) + _capital(stable.mirrored, 1 - mean)


def _capital(data: Histogram, mean: Array) -> Array:
    """`bounded.above`, with a mean of its own for each rollout."""
    gain = data.values / np.clip(mean, SURE, 1.0)[:, None] - 1
    logs = np.stack([np.einsum("rv,rv->r", data.counts, np.log1p(stake * gain)) for stake in STAKES])
    return log_mean(logs, np.full(len(STAKES), 1 / len(STAKES)))


def first_crossing(evidence: Array, needed: float, done: int, found: Array) -> Array:
    """`found`: canary requests until the first crossing, inf where there was none so far."""
    return np.where(np.isinf(found) & (evidence >= needed), done, found)


def error_rule_alone(
    config: RolloutConfig, rates: tuple[float, float], alpha: float, step: int, rollouts: int, seed: int
) -> Array:
    """Canary requests until the error rule rolls back; inf: never within the plan."""
    assert config.rules.error_rate
    rule = CountRule(rollouts, config.rules.error_rate.tolerance, -np.log(alpha))
    found = np.full(rollouts, np.inf)
    for look in error_looks(config.stages, rates, step, rollouts, seed):
        counts = Counts(look.canary, look.canary_errors, look.stable, look.stable_errors)
        evidence = rule.look(look.stage.weight, look.last, counts)
        found = first_crossing(evidence, -np.log(alpha), look.done, found)
    return found
