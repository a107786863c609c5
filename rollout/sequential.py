"""Is an event more frequent on the canary than on stable? A test that may be looked at as often as one likes.

An e-value is evidence with expectation at most 1 where the canary does no harm; a process of them that holds
this at any stopping time ever reaches 1/alpha with probability at most alpha, by Ville's inequality (Ramdas,
Gruenwald, Vovk & Shafer 2023, Statistical Science 38). The evidence here is a function of totals: how often
and when they were looked at is not in it. All is in logarithms and over any leading axes, so that thousands
of rollouts are judged at once (benchmarks/rollout.py).

The test bets on which variant an event comes from. Where a share w of the requests went to the canary, w of
the events are the canary's if both fail alike, and q = wr / (1 + w(r-1)) if its rate is r times stable's. The
likelihood ratio of the two, averaged over a prior of r > 1 (Robbins 1970, the method of mixtures), is the
evidence; its cousin of fixed size is the conditional test of two rates (Przyborowski & Wilenski 1940). What
strikes both variants, an outage say, is no evidence: events are only ever compared with events.

w is the share observed, as customers are sticky and some ask more than others. What is guaranteed:

- At each look, given who asked whom, the expectation is at most 1: with s = 1/(1 + w(r-1)) it is
  (1 - p + prs)^canary (1 - p + ps)^stable, whose factors have the mean 1 weighted by w and 1-w.
- Over looks it is exact while the observed share stays as it is (mirrored windows), else to the first order:
  estimates from all data so far have independent increments, nuisance or not (Jennison & Turnbull 1997, JASA
  92). How near that is was simulated, for shares of 1 to 90 %, rates of 0.1 to 40 % and looks at every few
  requests, also where the share wanders or errors come in bursts: always within alpha.
- With a tolerance t, null rate(canary) <= rate(stable) + t, a request multiplies the expectation by at most
  1 + t(q - w), which is divided out. For a small w no bet is better.

Assumed: events fall on the variants independently of each other. Failures of one customer do not, where she
stays with one variant; such events are customers, each counted once a rollout, and the share is then the
weight itself: by it, and by nothing else, she was dealt to her variant (docs/adr/0017).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

RATIOS = np.array([1.2, 1.35, 1.5, 1.75, 2, 2.5, 3, 4, 5, 6.5, 9, 13, 20, 40, 100, 400])
"""Harms looked for at once."""
PRIOR = np.array([1, 1, 2, 2, 3, 3, 3, 3, 3, 2, 2, 1, 1, 1, 1, 1]) / 30
"""Neighbours help each other: the threefold rate of benchmarks/rollout.py is found with some 40 % more
requests than by Wald's test, which is told both rates, where stable has plenty."""

LARGE = 1e300
"""Keeps minus infinity from being subtracted from itself."""


@dataclass(frozen=True)
class Counts:
    """Of one window, in which the split stood: requests (or customers), and the events among them.

    Numbers, or arrays of one shape.
    """

    canary: ArrayLike
    canary_events: ArrayLike
    stable: ArrayLike
    stable_events: ArrayLike


def excess_events(windows: Sequence[Counts], tolerance: float = 0.0) -> Array:
    """Log e-value against rate(canary) <= rate(stable) + tolerance in every window, whatever the rates are.

    Windows multiply, each with its own share and rates, under one ratio of harm. A window in which only one
    variant was asked says nothing. Mirrored windows need nothing else: of two answers to one request, one
    that errs alone is evidence, and two that err together are slightly less than none.
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


def mean_evidence(evidence: Sequence[ArrayLike], weights: Sequence[float] | None = None) -> Array:
    """The log of the (weighted) mean of e-values: an e-value too, however they hang together."""
    share = np.full(len(evidence), 1 / len(evidence)) if weights is None else np.asarray(weights)
    return log_mean(np.stack(np.broadcast_arrays(*evidence)).astype(np.float64), share)


def in_order(evidence: Sequence[ArrayLike]) -> Array:
    """The log of the mean of e-values of things that appear one after the other (windows, segments), however
    they hang together: the k-th has the part 1/(k(k+1)) of the capital from the beginning, and what has not
    appeared yet keeps its part at one. So nothing that appears later lowers, or raises, what is there.
    """
    if not len(evidence):
        return np.zeros(())
    number = np.arange(1, len(evidence) + 1)
    parts = [*(1 / (number * (number + 1))), 1 / (len(evidence) + 1)]
    return mean_evidence([*evidence, 0.0], parts)


def log_mean(logs: Array, weights: Array) -> Array:
    """Over the first axis, the log of the weighted mean of exponentials. NaN stays NaN."""
    most = np.maximum(logs.max(axis=0), -LARGE)
    return np.asarray(most + np.log(np.tensordot(weights, np.exp(logs - most), axes=1)))
