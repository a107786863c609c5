"""All rollout rules over thousands of rollouts at once, on made-up customers; numbers as judge_all's.

A customer has a score (of twelve), a segment (of three), an outcome that one in five times is known at once,
and a request: its error, latency and the state of its features. Whoever is on the canary is drawn from the
same crowd, so an identical canary differs from stable by chance alone; in the shadow window it answers the
same customers with the same scores.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.rollouts import CountRule, MeanRule, first_crossing, stable_meanwhile
from rollout.bounded import Histogram, above, below
from rollout.config import RolloutConfig, Stage
from rollout.evidence import Arm, Evidence, Labelled, Window
from rollout.rules import rules_of, shares
from rollout.rules.outcomes import FLOOR, LEAST, MOST
from rollout.sequential import RATIOS, Counts, mean_evidence, over_ratios, window_evidence

Array = NDArray[np.float64]

SCORES = np.array([20, 60, 110, 160, 210, 260, 320, 390, 470, 570, 700, 860]) / 1024
"""Multiples of bounded.BINS, so that rounding does nothing."""
SEGMENTS = np.array([0.5, 0.3, 0.2])
KNOWN = 0.2
"""Labels that are there at once."""
HIGH_RISK = 0.4
COUNTED = ("errors", "slow", "missing", "stale", "degraded")
RATES = {"errors": 0.01, "slow": 0.02, "missing": 0.02, "stale": 0.01, "degraded": 0.005}
EDGES = (10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0)
"""Of the latency histogram; latencies are exponential with a mean of 30 ms and a tenth ten times as slow."""

_CELLS = (SEGMENTS[:, None, None] * np.full((1, len(SCORES), 1), 1 / len(SCORES))) * np.stack(
    [np.full(len(SCORES), 1 - KNOWN), KNOWN * (1 - SCORES), KNOWN * SCORES], axis=-1
)
"""[segment, score, unknown | stayed | churned]: probability of a customer."""
_SLOWER = 0.9 * np.exp(-np.array(EDGES) / 30) + 0.1 * np.exp(-np.array(EDGES) / 300)


@dataclass
class Totals:
    """Of one variant in the present window; leading axis: rollouts."""

    requests: Array
    counted: dict[str, Array]
    customers: Array
    """[..., segment, score, label]"""
    slower: Array
    """[..., edge]: requests that took longer."""

    @classmethod
    def none(cls, rollouts: int) -> "Totals":
        zeros = np.zeros(rollouts)
        return cls(zeros, dict.fromkeys(COUNTED, zeros), np.zeros((rollouts, *_CELLS.shape)),
                   np.zeros((rollouts, len(EDGES))))  # fmt: skip

    def plus(self, other: "Totals") -> "Totals":
        counted = {name: self.counted[name] + other.counted[name] for name in COUNTED}
        return Totals(self.requests + other.requests, counted, self.customers + other.customers,
                      self.slower + other.slower)  # fmt: skip

    def arm(self, rollout: int) -> Arm:
        """As an observer would have told it."""
        cells = self.customers[rollout].astype(int)
        known = cells[..., 1:].sum(axis=0)  # [score, label]
        requests = int(self.requests[rollout])
        counted = {name: int(self.counted[name][rollout]) for name in COUNTED}
        return Arm(
            requests=requests,
            customers=requests,
            **counted,
            high_risk=int(cells[:, SCORES >= HIGH_RISK].sum()),
            scores=np.repeat(SCORES, cells.sum(axis=(0, 2))),
            segments={f"segment={s}": np.repeat(SCORES, cells[s].sum(axis=1)) for s in range(len(SEGMENTS))},
            labelled=Labelled(
                np.repeat(np.repeat(SCORES, 2), known.ravel()),
                np.repeat(np.tile([0.0, 1.0], len(SCORES)), known.ravel()),
            ),
            latency_ms={e: requests - int(n) for e, n in zip(EDGES, self.slower[rollout], strict=True)},
        )


def traffic(requests: Array, rates: dict[str, float], random: np.random.Generator) -> Totals:
    asked = requests.astype(np.int64)
    cells = random.multinomial(asked, _CELLS.ravel()).reshape(len(asked), *_CELLS.shape)
    between = random.multinomial(asked, -np.diff(_SLOWER, prepend=1.0, append=0.0))
    return Totals(
        requests,
        {name: random.binomial(asked, rates[name]).astype(np.float64) for name in COUNTED},
        cells.astype(np.float64),
        between[:, ::-1].cumsum(axis=1)[:, -2::-1].astype(np.float64),
    )


class Rollouts:
    """What every rule of the configuration knows, in every rollout."""

    def __init__(self, config: RolloutConfig, alpha: float, rollouts: int) -> None:
        rules, share = config.rules, shares(rules_of(config), alpha)
        assert rules.error_rate and rules.latency and rules.features and rules.score_shift
        assert rules.decision_rate and rules.outcomes and rules.segments
        self.needed = {name: -np.log(part) for name, part in share.items()}
        self.latency, self.minimum = rules.latency, rules.segments.min_customers
        tolerance = dict.fromkeys(COUNTED[2:], rules.features.tolerance)
        tolerance |= {"errors": rules.error_rate.tolerance, "slow": rules.latency.tolerance}
        rule_of = {"errors": "error_rate", "slow": "latency"}
        self.counts = {
            name: CountRule(rollouts, tolerance[name], self.needed[rule_of.get(name, "features")])
            for name in COUNTED
        }
        self.past_tail = np.zeros((len(EDGES), rollouts, len(RATIOS)))

        def two_sided(rule: str, tolerance: float) -> MeanRule:
            return MeanRule(rollouts, [tolerance] * 2, self.needed[rule], lambda e: mean_evidence(list(e)))

        self.scores = two_sided("score_shift", rules.score_shift.tolerance)
        self.decisions = two_sided("decision_rate", rules.decision_rate.tolerance)
        self.segments = [two_sided("segments", rules.segments.tolerance) for _ in SEGMENTS]
        apart = rules.outcomes.calibration_tolerance / 2
        worse = rules.outcomes.log_loss_tolerance / (MOST - LEAST)
        self.outcomes = MeanRule(rollouts, [worse, *[apart] * 4], self.needed["outcomes"], _outcomes)

    def look(self, stage: Stage, last: bool, canary: Totals, stable: Totals) -> dict[str, Array]:
        """Log e-values of each rule. Where a rule has surely not crossed, a bound that has not either."""
        found = {
            name: self.counts[name].look(
                stage.weight,
                last,
                Counts(canary.requests, canary.counted[name], stable.requests, stable.counted[name]),
            )
            for name in COUNTED
        }
        evidence = {
            "error_rate": found["errors"],
            "latency": mean_evidence([found["slow"], self._tail(last, canary, stable)]),
            "features": mean_evidence([found[name] for name in COUNTED[2:]]),
        }
        if stage.weight < 100:
            evidence |= self._means(stage, last, canary, stable)
        return evidence

    def _means(self, stage: Stage, last: bool, canary: Totals, stable: Totals) -> dict[str, Array]:
        c, s = _by_score(canary.customers.sum(axis=(1, 3))), _by_score(stable.customers.sum(axis=(1, 3)))
        if stage.mirror:  # the same customers: differences of zero
            level = (1 + self.scores.tolerances[0]) / 2
            same = Histogram(np.array([0.5]), canary.requests[:, None])
            bets = [above(same, np.array([level]))[:, 0], below(same, np.array([1 - level]))[:, 0]]
            scores = self.scores.add(last, np.stack(bets))
        else:
            scores = self.scores.look(last, [(c, s), (s, c)])
        c, s = _decided(c), _decided(s)
        decisions = self.decisions.look(last, [(c, s), (s, c)])
        segments = []
        for number, rule in enumerate(self.segments):
            c, s = (_by_score(one.customers[:, number].sum(axis=2)) for one in (canary, stable))
            enough = np.minimum(c.total, s.total) >= self.minimum
            segments.append(rule.look(last, [(c, s), (s, c)], enough))
        sides = [(_losses(canary), _losses(stable))]
        for sign, stable_sign in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            sides.append((_gaps(canary, sign), _gaps(stable, stable_sign)))
        known = np.minimum(*(one.customers[..., 1:].sum(axis=(1, 2, 3)) for one in (canary, stable))) > 0
        return {
            "score_shift": scores,
            "decision_rate": decisions,
            "segments": mean_evidence(segments),
            "outcomes": self.outcomes.look(last, sides, known),
        }

    def _tail(self, last: bool, canary: Totals, stable: Totals) -> Array:
        enough = np.minimum(canary.requests, stable.requests) >= self.latency.min_requests
        evidence = self.past_tail.copy()
        for at, edge in enumerate(EDGES):
            beyond = np.searchsorted(EDGES, edge * self.latency.max_p99_ratio)
            if beyond < len(EDGES):
                of = (canary.requests, canary.slower[:, beyond], stable.requests, stable.slower[:, at])
                evidence[at] += window_evidence(Counts(*(np.where(enough, one, 0.0) for one in of)))
        if last:
            self.past_tail = evidence
        return mean_evidence(list(over_ratios(evidence)))


def _outcomes(sides: Array) -> Array:
    return mean_evidence([sides[0], mean_evidence([sides[1:3].min(axis=0), sides[3:].min(axis=0)])])


def _by_score(counts: Array) -> Histogram:
    return Histogram(SCORES, counts)


def _decided(scores: Histogram) -> Histogram:
    high = scores.counts[:, scores.values >= HIGH_RISK].sum(axis=1)
    return Histogram(np.array([0.0, 1.0]), np.stack([scores.total - high, high], axis=-1))


def _losses(totals: Totals) -> Histogram:
    clipped = np.clip(SCORES, FLOOR, 1 - FLOOR)
    losses = (-np.log(np.concatenate([1 - clipped, clipped])) - LEAST) / (MOST - LEAST)
    known = totals.customers[..., 1:].sum(axis=1)
    return Histogram(np.clip(losses, 0, 1), np.concatenate([known[..., 0], known[..., 1]], axis=-1))


def _gaps(totals: Totals, sign: int) -> Histogram:
    gaps = (1 + sign * np.concatenate([SCORES, SCORES - 1])) / 2
    known = totals.customers[..., 1:].sum(axis=1)
    return Histogram(gaps, np.concatenate([known[..., 0], known[..., 1]], axis=-1))


def looks(
    config: RolloutConfig, canary_errors: float, step: int, rollouts: int, seed: int
) -> Iterator[tuple[Stage, int, bool, Totals, Totals]]:
    """Stage, the canary's requests so far, whether the window ends, and the window's totals."""
    random = np.random.default_rng(seed)
    done = 0
    for stage in config.stages:
        canary, stable = Totals.none(rollouts), Totals.none(rollouts)
        steps = max(stage.min_requests // step, 1)
        for number in range(1, steps + 1):
            more = traffic(np.full(rollouts, float(step)), RATES | {"errors": canary_errors}, random)
            beside = traffic(stable_meanwhile(stage, step, rollouts, random), RATES, random)
            if stage.mirror:
                beside.customers = more.customers
            canary, stable = canary.plus(more), stable.plus(beside)
            yield stage, done + number * step, number == steps, canary, stable
        done += steps * step


def all_rules(
    config: RolloutConfig, canary_errors: float, alpha: float, step: int, rollouts: int, seed: int
) -> dict[str, Array]:
    """Of each rule, [rollouts]: canary requests until it rolls back; inf: never within the plan."""
    state = Rollouts(config, alpha, rollouts)
    found = {name: np.full(rollouts, np.inf) for name in state.needed}
    for stage, done, last, canary, stable in looks(config, canary_errors, step, rollouts, seed):
        for name, evidence in state.look(stage, last, canary, stable).items():
            found[name] = first_crossing(evidence, state.needed[name], done, found[name])
    return found


def evidence_of(windows: Sequence[tuple[Stage, Totals, Totals]], rollout: int) -> Evidence:
    """What the rules of the product get to see of one of these rollouts."""
    return Evidence(
        tuple(
            Window(
                stage.weight,
                stage.mirror,
                stable=stable.arm(rollout),
                canary=canary.arm(rollout),
                pairs=np.zeros(int(canary.requests[rollout])) if stage.mirror else np.empty(0),
            )
            for stage, canary, stable in windows
        )
    )
