"""Errors and latencies of thousands of rollouts in time: customers who stay and ask again, stalls, the watch.

Each customer has a place in [0, 1) and is the canary's where it is below the weight, so that who is on the
canary stays there. Some fail on every request, on either variant, and their clients ask again each second;
all others fail by chance. Requests have a lognormal latency; a process (and at times the whole machine)
stalls, and whoever asks meanwhile waits for the end of the stall. The plan's windows last as long as it says,
then the watch follows. Arrays over rollouts, a step a block of time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from benchmarks.rollouts import Split, first_crossing
from rollout.config import RolloutConfig, Stage
from rollout.evidence import Tries
from rollout.rules import rules_of, shares
from rollout.rules.events import BEFORE_AFTER_SHARE
from rollout.rules.latency import P99
from rollout.statistics.e_values import log_mean, mean_evidence
from rollout.statistics.event_rates import Counts
from rollout.statistics.sign_test import STAKES, losses
from serving.gateway.envoy.latency_buckets import time_buckets

Array = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """What traffic, machine and canary are like; the canary is identical by default."""

    requests_per_s: float = 100.0
    customers: int = 5_000
    error_rate: float = 0.01
    canary_error_rate: float = 0.01
    broken: float = 0.0
    """Share of the customers who fail on every request, on either variant, and whose clients ask again."""
    again: int = 30
    """Tries of such a client, one a second."""
    median_ms: float = 10.0
    sigma: float = 0.6
    canary_times: float = 1.0
    """How many times slower each request of the canary is."""
    canary_median_ms: float | None = None
    """Requests below this take so long on the canary: a slower median with the same p99."""
    stalls_per_s: float = 0.0
    """Of each process, and as many of the whole machine."""
    stall_s: float = 0.25
    """Mean of a stall's length; it is exponential."""


@dataclass
class Variant:
    """What one variant did in a block: [rollouts], and [rollouts, edges] beyond each edge."""

    requests: Array
    failures: Array
    """Customers who failed for the first time; in a shadow requests."""
    raw_failures: Array
    """Requests that failed, tries again included."""
    beyond: Array = field(default_factory=lambda: np.zeros((0, 0)))


@dataclass(frozen=True)
class Block:
    stage: Stage
    watch: bool
    last: bool
    """Of its window."""
    canary: Variant
    stable: Variant


class Simulation:
    """Blocks of all rollouts, one after the other."""

    def __init__(self, config: RolloutConfig, world: World, rollouts: int, seed: int) -> None:
        self.config, self.world, self.rollouts = config, world, rollouts
        self.random = np.random.default_rng(seed)
        objective = config.rules.latency.objective_ms if config.rules.latency else 250.0
        self.edges = np.array([edge for edge in time_buckets(objective) if 8 <= edge <= 2000])
        self.place = self.random.random((rollouts, world.customers))
        self.failed = np.zeros((rollouts, world.customers), dtype=bool)
        self.broken = max(int(world.broken * world.customers), 0)
        self.asks = self.random.exponential(600, (rollouts, max(self.broken, 1)))
        """Second at which a broken customer begins to ask."""
        self.clock = 0.0

    def blocks(self) -> Iterator[Block]:
        length = self.config.block_s
        for stage in self.config.stages:
            share = 1.0 if stage.mirror else stage.weight / 100
            needed = stage.min_requests / (self.world.requests_per_s * share)
            count = max(int(np.ceil(max(stage.min_s, needed) / length)), 1)
            for number in range(count):
                yield self._block(stage, False, number == count - 1)
        for number in range(int(self.config.watch_s / length)):
            yield self._block(self.config.stages[-1], True, number == int(self.config.watch_s / length) - 1)

    def _block(self, stage: Stage, watch: bool, last: bool) -> Block:
        world, length = self.world, self.config.block_s
        rate, share = world.requests_per_s * length, stage.weight / 100
        rates = (rate, rate) if stage.mirror else (rate * share, rate * (1 - share))
        machine = self._stalls()
        answered = [
            self._answered(one, [*self._stalls(), *machine], canary)
            for one, canary in zip(rates, (True, False), strict=True)
        ]
        requests, beyond = [one[0] for one in answered], [one[1] for one in answered]
        failures, raw = self._failures(stage, requests)
        self.clock += length
        canary, stable = (
            Variant(requests[which], failures[which], raw[which], beyond[which]) for which in (0, 1)
        )
        return Block(stage, watch, last, canary, stable)

    def _stalls(self) -> list[Array]:
        """Lengths of the (at most two) stalls of a block."""
        happen = self.world.stalls_per_s * self.config.block_s / 2
        if not happen:
            return []
        lengths = self.random.exponential(self.world.stall_s, (2, self.rollouts))
        return list(np.where(self.random.random((2, self.rollouts)) < happen, lengths, 0.0))

    def _answered(self, rate: float, stalls: list[Array], canary: bool) -> tuple[Array, Array]:
        """[rollouts] requests, and [rollouts, edges] those that took longer: by themselves, or as they came
        in a stall and waited for its end. Independent Poisson numbers in each bucket."""
        world, length = self.world, self.config.block_s
        edges = self.edges / (world.canary_times if canary else 1.0)
        tail = norm.sf(np.log(edges / world.median_ms) / world.sigma)
        if canary and world.canary_median_ms is not None:
            tail = np.where(self.edges < world.canary_median_ms, 1.0, tail)
        free, beyond = np.ones(self.rollouts), np.zeros((self.rollouts, len(edges)))
        for stall in stalls:
            caught = np.minimum(stall / length, free)
            left = np.clip(1 - self.edges / 1000 / np.maximum(stall, 1e-9)[:, None], 0, 1)
            beyond += caught[:, None] * left
            free = free - caught
        beyond += free[:, None] * tail
        buckets = -np.diff(beyond, axis=1, prepend=1.0, append=0.0)
        counts = self.random.poisson(rate * np.maximum(buckets, 0.0)).astype(float)
        return counts.sum(axis=1), counts[:, ::-1].cumsum(axis=1)[:, -2::-1]

    def _failures(self, stage: Stage, requests: list[Array]) -> tuple[list[Array], list[Array]]:
        world, length = self.world, self.config.block_s
        chance = [
            self.random.binomial(n.astype(np.int64), rate)
            for n, rate in zip(requests, (world.canary_error_rate, world.error_rate), strict=True)
        ]
        now = (self.asks >= self.clock - world.again) & (self.asks < self.clock + length)
        asking = now[:, : self.broken]
        if stage.mirror:
            tries = asking.sum(axis=1) * length
            each = [one + tries for one in chance]
            return each, each
        of_canary = self.place[:, : self.broken] < stage.weight / 100
        new = asking & ~self.failed[:, : self.broken]
        self.failed[:, : self.broken] |= asking
        first = [(new & of_canary).sum(axis=1), (new & ~of_canary).sum(axis=1)]
        raw = [
            one + (asking & whose).sum(axis=1) * length
            for one, whose in zip(chance, (of_canary, ~of_canary), strict=True)
        ]
        others = [self._first_of(number, stage.weight / 100, side) for side, number in enumerate(chance)]
        counted = [np.asarray(a + b, dtype=float) for a, b in zip(first, others, strict=True)]
        # rules refuse more failing customers than requests
        return [np.minimum(n, c) for n, c in zip(requests, counted, strict=True)], raw

    def _first_of(self, number: NDArray[np.int64], weight: float, side: int) -> Array:
        """Who of these failures by chance are customers that had not failed before. [rollouts]"""
        rollout = np.repeat(np.arange(self.rollouts), number)
        low, high = (0.0, weight) if side == 0 else (weight, 1.0)
        customer = self.random.integers(self.broken, self.world.customers, len(rollout))
        place = self.place[rollout, customer]
        for _ in range(200):  # drawn again until the place is on that side
            wrong = (place < low) | (place >= high)
            if not wrong.any():
                break
            customer[wrong] = self.random.integers(self.broken, self.world.customers, int(wrong.sum()))
            place[wrong] = self.place[rollout[wrong], customer[wrong]]
        else:
            customer, rollout = customer[~wrong], rollout[~wrong]
        cells = np.unique(rollout * self.world.customers + customer)
        rollout, customer = np.divmod(cells, self.world.customers)
        new = ~self.failed[rollout, customer]
        self.failed[rollout[new], customer[new]] = True
        return np.bincount(rollout[new], minlength=self.rollouts).astype(float)


class Bets:
    """rollout/statistics/sign_test.py over many rollouts: side by side, and by a tenth before against
    after."""

    def __init__(self, rollouts: int, tolerance: float) -> None:
        self.tolerance = tolerance
        self.beside, self.after = np.zeros((2, len(STAKES), rollouts))
        self.before: list[Tries] = []

    def look(self, alone: bool, canary: Tries, stable: Tries, after: tuple[Tries, Tries]) -> None:
        """`after`: of the canary and of stable, for the comparison of before and after."""
        if not alone:
            self.beside += np.log1p(STAKES[:, None] * losses(canary, stable, self.tolerance))
            self.before.append(after[1])
        elif self.before:
            self.after += np.log1p(STAKES[:, None] * losses(after[0], self.before.pop(), self.tolerance))

    def log_e(self, side: Array | None = None) -> Array:
        part = np.full(len(STAKES), 1 / len(STAKES))
        beside = log_mean(self.beside, part) if side is None else side
        return mean_evidence(
            [beside, log_mean(self.after, part)], [1 - BEFORE_AFTER_SHARE, BEFORE_AFTER_SHARE]
        )


@dataclass
class P99s:
    """`rollout.rules.latency.Tail` over many rollouts: which edge is stable's p99, as known so far."""

    edges: Array
    ratio: float
    minimum: int
    timed: Array
    beyond: Array
    first: NDArray[np.int64]
    """Index of the first p99 that was known; -1: none yet."""

    @classmethod
    def begin(cls, edges: Array, ratio: float, minimum: int, rollouts: int) -> "P99s":
        return cls(edges, ratio, minimum, np.zeros(rollouts), np.zeros((rollouts, len(edges))),
                   np.full(rollouts, -1))  # fmt: skip

    def look(self, block: Block) -> tuple[Tries, Tries, tuple[Tries, Tries]]:
        stable, canary = block.stable, block.canary
        known = self.timed >= self.minimum
        under = self.beyond <= P99 * self.timed[:, None]
        at = np.where(known & under.any(axis=1), under.argmax(axis=1), -1)
        self.first = np.where((self.first < 0) & (at >= 0), at, self.first)
        beside = self._tries(canary, at, self.ratio), self._tries(stable, at, 1.0)
        after = self._tries(canary, self.first, self.ratio), self._tries(stable, self.first, 1.0)
        if block.stage.weight < 100:
            self.timed = self.timed + stable.requests
            self.beyond = self.beyond + stable.beyond
        return *beside, after

    def _tries(self, variant: Variant, at: NDArray[np.int64], ratio: float) -> Tries:
        edge = np.searchsorted(self.edges, self.edges[np.maximum(at, 0)] * ratio) if ratio > 1 else at
        known = (at >= 0) & (edge < len(self.edges))
        events = variant.beyond[np.arange(len(at)), np.minimum(np.maximum(edge, 0), len(self.edges) - 1)]
        return Tries(np.where(known, variant.requests, 0.0), np.where(known, events, 0.0))


class ByRequest:
    """What the rules found when they counted requests: each that failed, tries again included, and each that
    was slower than the objective, whoever waited behind which stall."""

    def __init__(self, rollouts: int, tolerance: float) -> None:
        self.totals = np.zeros((6, rollouts))
        self.errors, self.late = Split(rollouts, 0.0), Split(rollouts, tolerance)
        self.found = {"errors by request": np.zeros(rollouts), "slow by request": np.zeros(rollouts)}

    def look(self, block: Block, objective: int) -> dict[str, Array]:
        if block.stage.weight < 100:
            self.totals = self.totals + np.stack(
                [
                    count
                    for v in (block.canary, block.stable)
                    for count in (v.requests, v.raw_failures, v.beyond[:, objective])
                ]
            )
            requests, failed, late = (self.totals[[kind, kind + 3]] for kind in range(3))
            self.found = {
                name: split.look(False, block.last, Counts(requests[0], events[0], requests[1], events[1]))
                for name, split, events in zip(
                    self.found, (self.errors, self.late), (failed, late), strict=True
                )
            }
            if block.last:
                self.totals = np.zeros_like(self.totals)
        return self.found


SHARE_OF = {"errors by request": "error_rate", "slow by request": "latency"}


def judged(config: RolloutConfig, world: World, rollouts: int, seed: int) -> dict[str, Array]:
    """Seconds until each rule rolls back, in every rollout; inf: never, the watch included."""
    share = shares(rules_of(config), config.alpha)
    found: dict[str, Array] = {}
    for seconds, evidence in looks(config, world, rollouts, seed):
        for name, log_e in evidence.items():
            before = found.get(name, np.full(rollouts, np.inf))
            needed = -np.log(share[SHARE_OF.get(name, name)])
            found[name] = first_crossing(log_e, needed, seconds, before)
    return found


def looks(
    config: RolloutConfig, world: World, rollouts: int, seed: int
) -> Iterator[tuple[float, dict[str, Array]]]:
    """Seconds, and the log e-value of each rule, after every block."""
    assert config.rules.error_rate and config.rules.latency
    rule, made = config.rules.latency, Simulation(config, world, rollouts, seed)
    split, errors = Split(rollouts, config.rules.error_rate.tolerance), Bets(rollouts, 0.0)
    slow, tail = Bets(rollouts, rule.tolerance), Bets(rollouts, 0.0)
    p99s = P99s.begin(made.edges, rule.max_p99_ratio, rule.min_requests, rollouts)
    objective = int(np.searchsorted(made.edges, rule.objective_ms))
    before = ByRequest(rollouts, rule.tolerance)
    totals, side = np.zeros((4, rollouts)), np.zeros(rollouts)
    for block in made.blocks():
        alone, canary, stable = block.stage.weight == 100, block.canary, block.stable
        if not alone:
            totals = totals + np.stack([canary.requests, canary.failures, stable.requests, stable.failures])
            side = split.look(block.stage.mirror, block.last, _dealt(block.stage, totals))
            totals = np.zeros((4, rollouts)) if block.last else totals
        failures = [Tries(v.requests, np.minimum(v.failures, v.requests)) for v in (canary, stable)]
        errors.look(alone, *failures, (failures[0], failures[1]))
        late = [Tries(v.requests, v.beyond[:, objective]) for v in (canary, stable)]
        slow.look(alone, *late, (late[0], late[1]))
        tail.look(alone, *p99s.look(block))
        evidence = {
            "error_rate": errors.log_e(side),
            "latency": mean_evidence([slow.log_e(), tail.log_e()]),
        }
        yield made.clock, evidence | before.look(block, objective)


def _dealt(stage: Stage, totals: Array) -> Counts:
    canary, canary_failed, stable, stable_failed = totals
    if stage.mirror:
        return Counts(canary, canary_failed, stable, stable_failed)
    requests, share = canary + stable, stage.weight / 100
    return Counts(requests * share, canary_failed, requests * (1 - share), stable_failed)
