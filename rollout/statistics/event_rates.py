"""Is an event (an error, a slow request) more frequent on the canary than on stable? A sequential test of
rates.

The evidence is a function of totals: how often and when they were looked at has no influence. All is in
logarithms and over any leading axes, so that thousands of rollouts are judged at once
(benchmarks/rollout.py).

The test bets on which variant an event comes from. Where a share w of the requests went to the canary, w of
the events are the canary's if both fail alike, and q = wr / (1 + w(r-1)) if its rate is r times stable's. The
likelihood ratio of the two, averaged over a prior of r > 1 (Robbins 1970, the method of mixtures), is the
evidence. The corresponding test of fixed size is the conditional test of two rates (Przyborowski & Wilenski
1940). An event that affects both variants, an outage for example, is no evidence, because events are compared
with events only.

w is the observed share, since customers stay with their variant and some send more requests than others:

- At each look, given which variant each request went to, the expectation is at most 1: with
  s = 1/(1 + w(r-1)) it is (1 - p + prs)^canary (1 - p + ps)^stable, whose factors have the mean 1 weighted by
  w and 1-w.
- Over looks it is exact while the observed share stays as it is (mirrored windows), else to the first order:
  estimates from all data so far have independent increments, also with nuisance parameters (Jennison &
  Turnbull 1997, JASA 92). The error of this approximation was simulated for shares of 1 to 90 %, rates of 0.1
  to 40 % and a look at every few requests, also where the share varies or errors come in bursts: always
  within alpha.
- With a tolerance t, null rate(canary) <= rate(stable) + t, a request multiplies the expectation by at most
  1 + t(q - w), by which it is divided. For a small w no bet is better.

Assumed: events fall on the variants independently of each other. Failures of one customer are not independent
where the customer stays with one variant. Such events are counted by customer, each once a rollout, and w is
then the weight itself: the weight alone determines the probability of a customer's variant (docs/adr/0017).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rollout.statistics.e_values import Array, log_mean

RATIOS = np.array([1.2, 1.35, 1.5, 1.75, 2, 2.5, 3, 4, 5, 6.5, 9, 13, 20, 40, 100, 400])
"""Ratios of the canary's rate to stable's that are tested at once."""
PRIOR = np.array([1, 1, 2, 2, 3, 3, 3, 3, 3, 2, 2, 1, 1, 1, 1, 1]) / 30
"""Neighbouring ratios support each other: the threefold rate of benchmarks/rollout.py is found with some 40 %
more requests than by Wald's test, which is given both rates, where stable has plenty of requests."""


@dataclass(frozen=True)
class Counts:
    """Requests (or customers) of one window with one split, and the events among them: numbers, or arrays of
    one shape."""

    canary: ArrayLike
    canary_events: ArrayLike
    stable: ArrayLike
    stable_events: ArrayLike


def excess_events(windows: Sequence[Counts], tolerance: float = 0.0) -> Array:
    """[...]: log e-value against rate(canary) <= rate(stable) + tolerance in every window, at any rates.

    Windows multiply, each with its own share and rates, under one ratio of harm. A window in which only one
    variant got requests contributes nothing. The same formula holds for mirrored windows: where one of two
    answers to a request is an error, that is evidence; where both are, it is slightly less than none.
    """
    evidence = [window_evidence(counts, tolerance) for counts in windows]
    return over_ratios(sum(evidence, np.zeros(len(RATIOS))))


def window_evidence(counts: Counts, tolerance: float = 0.0) -> Array:
    """[..., len(RATIOS)]: the log e-value of each ratio; those of windows are added."""
    canary, canary_events, stable, stable_events = (
        np.asarray(of, dtype=np.float64)[..., None]
        for of in (counts.canary, counts.canary_events, counts.stable, counts.stable_events)
    )
    share = canary / np.maximum(canary + stable, 1)
    surely = 1 + share * (RATIOS - 1)
    evidence = canary_events * np.log(RATIOS) - (canary_events + stable_events) * np.log(surely)
    if tolerance:
        moved = share * RATIOS / surely - share
        evidence = evidence - (canary + stable) * np.log1p(tolerance * moved)
    return np.asarray(evidence)


def over_ratios(evidence: Array) -> Array:
    """[...]: the log of the e-values' mean under the prior."""
    return log_mean(np.moveaxis(evidence, -1, 0), PRIOR)
