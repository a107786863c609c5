"""Simulates the rules about customers: the same customers send requests in all stages of a rollout.

A customer has a place in [0, 1), which decides the variant, a score (of twelve), a segment (of three), an
outcome that is known at once with a probability of 1/5, and features that may be missing, stale or degraded.
These are the same in all stages: a customer with a low score who is on the canary by chance is on it in every
later stage too. The canary is identical to stable. In each window each customer sends a request with one
probability, a part of them before each look.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.rollouts import first_crossing
from rollout.config import RolloutConfig, Stage
from rollout.evidence import Arm, Evidence, Labelled, Window
from rollout.rules import rules_of, shares
from rollout.rules.events import BEFORE_AFTER_SHARE
from rollout.rules.outcomes import FLOOR, LEAST, MOST
from rollout.statistics.bounded_means import Histogram, above, below, excess_mean
from rollout.statistics.e_values import in_order, mean_evidence
from rollout.statistics.event_rates import Counts, excess_events

Array = NDArray[np.float64]

SCORES = np.array([20, 60, 110, 160, 210, 260, 320, 390, 470, 570, 700, 860]) / 1024
"""Multiples of bounded.BINS, so that rounding does nothing."""
SEGMENTS = np.array([0.5, 0.3, 0.2])
KNOWN = 0.2
"""Share of the labels that are known at once."""
HIGH_RISK = 0.4
KINDS = {"missing": 0.02, "stale": 0.01, "degraded": 0.005}
CUSTOMERS = 3_000
REQUEST_RATE = 0.9
"""Share of the customers who send a request in a window."""
LOOKS = (0.25, 0.5, 1.0)
"""Share of a window's customers whose request has arrived at each look."""

_CELLS = (SEGMENTS[:, None, None] * np.full((1, len(SCORES), 1), 1 / len(SCORES))) * np.stack(
    [np.full(len(SCORES), 1 - KNOWN), KNOWN * (1 - SCORES), KNOWN * SCORES], axis=-1
)
"""[segment, score, unknown | stayed | churned]: probability of a customer."""


@dataclass
class Crowd:
    """Customers of one variant with a request in the present window. Leading axis: rollouts."""

    cells: Array
    """[..., segment, score, label]"""
    bad: dict[str, Array]

    @property
    def customers(self) -> Array:
        return np.asarray(self.cells.sum(axis=(-3, -2, -1)))

    def scores(self, segment: int | None = None) -> Histogram:
        cells = self.cells.sum(axis=-3) if segment is None else self.cells[..., segment, :, :]
        return Histogram(SCORES, cells.sum(axis=-1))

    def decisions(self) -> Histogram:
        scores = self.scores()
        high = scores.counts[..., scores.values >= HIGH_RISK].sum(axis=-1)
        return Histogram(np.array([0.0, 1.0]), np.stack([scores.total - high, high], axis=-1))

    def losses(self) -> Histogram:
        clipped = np.clip(SCORES, FLOOR, 1 - FLOOR)
        losses = (-np.log(np.concatenate([1 - clipped, clipped])) - LEAST) / (MOST - LEAST)
        return Histogram(np.clip(losses, 0, 1), self._known())

    def gaps(self, sign: int) -> Histogram:
        return Histogram((1 + sign * np.concatenate([SCORES, SCORES - 1])) / 2, self._known())

    def _known(self) -> Array:
        known = self.cells.sum(axis=-3)[..., 1:]
        return np.concatenate([known[..., 0], known[..., 1]], axis=-1)

    def arm(self, rollout: int) -> Arm:
        """The counts of one rollout, as an observer reports them."""
        cells = self.cells[rollout].astype(int)
        known = cells[..., 1:].sum(axis=0)  # [score, label]
        return Arm(
            requests=int(cells.sum()),
            customers=int(cells.sum()),
            **{name: int(self.bad[name][rollout]) for name in KINDS},
            high_risk=int(cells[:, SCORES >= HIGH_RISK].sum()),
            scores=np.repeat(SCORES, cells.sum(axis=(0, 2))),
            segments={f"segment={s}": np.repeat(SCORES, cells[s].sum(axis=1)) for s in range(len(SEGMENTS))},
            labelled=Labelled(
                np.repeat(np.repeat(SCORES, 2), known.ravel()),
                np.repeat(np.tile([0.0, 1.0], len(SCORES)), known.ravel()),
            ),
        )


@dataclass(frozen=True)
class Seen:
    stage: Stage
    last: bool
    canary: Crowd
    stable: Crowd


class Simulation:
    def __init__(self, config: RolloutConfig, rollouts: int, seed: int) -> None:
        self.stages, self.random = config.stages, np.random.default_rng(seed)
        edges = sorted({0, 100, *(stage.weight for stage in config.stages)})
        self.upper = np.array(edges[1:])
        """Upper ends of the intervals of places between two weights, in percent."""
        parts = np.diff(edges) / 100
        joint = (parts[:, None] * _CELLS.ravel()).ravel()
        drawn = self.random.multinomial(CUSTOMERS, joint, rollouts)
        self.cells = drawn.reshape(rollouts, len(parts), *_CELLS.shape)
        """[rollouts, part, segment, score, label]"""
        customers = self.cells.sum(axis=(2, 3, 4))
        self.bad = {name: self.random.binomial(customers, rate) for name, rate in KINDS.items()}

    def looks(self) -> "list[Seen]":
        return [seen for stage in self.stages for seen in self._window(stage)]

    def _window(self, stage: Stage) -> list[Seen]:
        arrived, bad = np.zeros_like(self.cells), {name: np.zeros_like(n) for name, n in self.bad.items()}
        found, before = [], 0.0
        for part in LOOKS:
            chance = REQUEST_RATE * (part - before) / (1 - REQUEST_RATE * before)
            arrived = arrived + self.random.binomial(self.cells - arrived, chance)
            bad = {name: n + self.random.binomial(self.bad[name] - n, chance) for name, n in bad.items()}
            before = part
            all_places = np.ones(len(self.upper), dtype=bool)
            mine = all_places if stage.mirror else self.upper <= stage.weight
            others = all_places if stage.mirror else ~mine
            canary, stable = (_crowd(arrived, bad, which) for which in (mine, others))
            found.append(Seen(stage, part == LOOKS[-1], canary, stable))
        return found


def _crowd(arrived: NDArray[np.int64], bad: dict[str, NDArray[np.int64]], which: NDArray[np.bool_]) -> Crowd:
    counted = {name: n[:, which].sum(axis=1).astype(float) for name, n in bad.items()}
    return Crowd(arrived[:, which].sum(axis=1).astype(float), counted)


class Judges:
    """What the rules about customers find, window by window; each e-value [rollouts]."""

    def __init__(self, config: RolloutConfig) -> None:
        rules = config.rules
        assert (
            rules.features and rules.score_shift and rules.decision_rate and rules.outcomes and rules.segments
        )
        self.rules, self.before = rules, Crowd(np.zeros((1, *_CELLS.shape)), {})
        self.windows: dict[str, list[list[Array]]] = {}
        """Of each test, the windows that are over and the present one last: each of its sides."""

    def look(self, seen: Seen, first: bool) -> dict[str, Array]:
        if seen.stage.weight == 100:
            for name in KINDS:
                self._put(f"alone {name}", first, [self._alone(seen, name)])
        else:
            self._beside(seen, first)
        return {
            "features": mean_evidence([self._kind(name) for name in KINDS]),
            "score_shift": self._sides("scores"),
            "decision_rate": self._sides("decisions"),
            "segments": in_order([self._sides(f"segment {number}") for number in range(len(SEGMENTS))]),
            "outcomes": mean_evidence([self._sides("losses"), self._sides("gaps")]),
        }

    def _beside(self, seen: Seen, first: bool) -> None:
        rules, c, s = self.rules, seen.canary, seen.stable
        assert (
            rules.features and rules.score_shift and rules.decision_rate and rules.outcomes and rules.segments
        )
        for name in KINDS:
            counts = Counts(c.customers, c.bad[name], s.customers, s.bad[name])
            self._put(name, first, [excess_events([counts], rules.features.tolerance)])
        if seen.stage.mirror:  # the same customers with the same scores
            level, same = (
                (1 + rules.score_shift.tolerance) / 2,
                Histogram(np.array([0.5]), c.customers[:, None]),
            )
            bets = above(same, np.array([level]))[:, 0], below(same, np.array([1 - level]))[:, 0]
            self._put("scores", first, list(bets))
        else:
            self._put("scores", first, _both_ways(c.scores(), s.scores(), rules.score_shift.tolerance))
        self._put("decisions", first, _both_ways(c.decisions(), s.decisions(), rules.decision_rate.tolerance))
        for number in range(len(SEGMENTS)):
            one, other = c.scores(number), s.scores(number)
            enough = np.minimum(one.total, other.total) >= rules.segments.min_customers
            sides = _both_ways(one, other, rules.segments.tolerance)
            self._put(f"segment {number}", first, [np.where(enough, side, 0.0) for side in sides])
        worse = rules.outcomes.log_loss_tolerance / (MOST - LEAST)
        self._put("losses", first, [excess_mean(c.losses(), s.losses(), worse)])
        allowed = rules.outcomes.calibration_tolerance / 2
        gaps = [
            np.minimum(*(excess_mean(c.gaps(side), s.gaps(sign), allowed) for sign in (1, -1)))
            for side in (1, -1)
        ]
        self._put("gaps", first, gaps)
        self.before = s

    def _alone(self, seen: Seen, name: str) -> Array:
        assert self.rules.features
        one, other = (
            Histogram(np.array([0.0, 1.0]), np.stack([of.customers - of.bad[name], of.bad[name]], axis=-1))
            for of in (seen.canary, self.before)
        )
        return excess_mean(one, other, self.rules.features.tolerance)

    def _kind(self, name: str) -> Array:
        parts = [self._sides(name), self._sides(f"alone {name}")]
        return mean_evidence(parts, [1 - BEFORE_AFTER_SHARE, BEFORE_AFTER_SHARE])

    def _put(self, test: str, first: bool, sides: list[Array]) -> None:
        windows = self.windows.setdefault(test, [])
        if not first and windows:
            windows.pop()
        windows.append(sides)

    def _sides(self, test: str) -> Array:
        windows = self.windows.get(test, [])
        if not windows:
            return np.zeros(())
        return mean_evidence(
            [in_order([window[side] for window in windows]) for side in range(len(windows[0]))]
        )


def _both_ways(one: Histogram, other: Histogram, tolerance: float) -> list[Array]:
    return [excess_mean(one, other, tolerance), excess_mean(other, one, tolerance)]


def judged(config: RolloutConfig, rollouts: int, seed: int) -> dict[str, Array]:
    """Of each rule about customers, [rollouts]: the look at which it rolls back; inf: never."""
    share, judges = shares(rules_of(config), config.alpha), Judges(config)
    found: dict[str, Array] = {}
    stage = None
    for number, seen in enumerate(Simulation(config, rollouts, seed).looks()):
        first, stage = seen.stage is not stage, seen.stage
        for name, evidence in judges.look(seen, first).items():
            before = found.get(name, np.full(rollouts, np.inf))
            found[name] = first_crossing(
                np.broadcast_to(evidence, rollouts), -np.log(share[name]), number, before
            )
    return found


def evidence_of(
    windows: Sequence[Seen], rollout: int, row: Callable[[Crowd, int], Arm] = Crowd.arm
) -> Evidence:
    """What the rules of the product get to see of one of these rollouts."""
    return Evidence(
        tuple(
            Window(
                seen.stage.weight,
                seen.stage.mirror,
                stable=row(seen.stable, rollout),
                canary=row(seen.canary, rollout),
                pairs=np.zeros(int(seen.canary.customers[rollout])) if seen.stage.mirror else np.empty(0),
            )
            for seen in windows
        )
    )
