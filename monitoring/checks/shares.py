"""Is a share of customers larger than natural variation explains? One test over a whole history of steps.

In each step some of the customers have a property: a value that became null, an amount above a limit. The
null hypothesis is that the share is at most a bound: the median of the past steps, plus the margin or four
median absolute deviations, whichever is larger. The evidence of a step is a bet against it
(rollout/statistics/bounded_means.py), with customers as the independent units. The evidence of all steps is
combined by monitoring/change.py, so that the error rate is one of the whole history.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from monitoring.change import Evidence
from rollout.statistics.bounded_means import Histogram, above

Floats = NDArray[np.float64]

LEAST_PAST = 3
"""Steps before the first one that is judged: natural variation needs a few."""

DEVIATIONS = 4.0
"""Median absolute deviations that count as natural: 2.7 standard deviations of normal numbers."""

MOST_LOG_E = 50.0
"""Limit of the evidence of one step. A smaller e-value is still an e-value, and numbers stay readable."""

POSSIBLE = 0.995
"""A bound above this share cannot be exceeded in a way that a test can show."""


@dataclass(frozen=True)
class Properties:
    """Which customers of one step have which properties."""

    keys: Sequence[tuple[str, str]]
    """[P] subject and kind of each property."""
    hits: NDArray[np.bool_]
    """[customers, P]"""
    among: NDArray[np.bool_]
    """[customers, P]: who could have the property."""

    def counts(self) -> pd.DataFrame:
        """A row for each property: `subject`, `kind`, `hits`, `rows`."""
        return pd.DataFrame(
            {
                "subject": [subject for subject, _ in self.keys],
                "kind": [kind for _, kind in self.keys],
                "hits": (self.hits & self.among).sum(axis=0, dtype=np.int64),
                "rows": self.among.sum(axis=0, dtype=np.int64),
            }
        )

    @classmethod
    def of(
        cls, columns: Mapping[tuple[str, str], tuple[NDArray[np.bool_], NDArray[np.bool_]]], customers: int
    ) -> "Properties":
        """From hits and among [customers] of each property."""
        if not columns:
            empty = np.zeros((customers, 0), dtype=bool)
            return cls([], empty, empty)
        hits, among = (np.stack(part, axis=1) for part in zip(*columns.values(), strict=True))
        return cls(list(columns), hits, among)


@dataclass(frozen=True)
class Margin:
    """How much larger than in the past a share may be."""

    size: float
    """A difference of shares, or a factor above 1 where `is_ratio`."""
    is_ratio: bool = False
    of_rest: bool = False
    """The factor is one of the remaining customers: a share of .98 may rise to .99 if the rest halves."""
    least: float = 0.0
    """A bound is never below this share."""

    def bound(self, past: Floats) -> float:
        """The largest share that natural variation explains, from the shares of past steps."""
        if not self.is_ratio:
            return max(float(np.median(past)) + max(self.size, DEVIATIONS * _mad(past)), self.least)
        logs = np.log(np.maximum(1 - past if self.of_rest else past, 1e-6))
        width = max(float(np.log(self.size)), DEVIATIONS * _mad(logs))
        center = float(np.median(logs))
        return float(1 - np.exp(center - width)) if self.of_rest else float(np.exp(center + width))


@dataclass(frozen=True)
class Judged:
    """The newest step of a history."""

    share: float
    """NaN without enough rows."""
    bound: float
    """NaN while there are too few past steps."""
    rows: int
    evidence: float
    """Log evidence of a change over the history, to be compared with the level."""
    is_alarm: bool


class History:
    """The steps of one share, judged one after the other.

    A step with too few customers is not judged. After an alarm the history begins anew, and the step is no
    part of the natural variation.
    """

    def __init__(
        self,
        margin: Margin,
        level: float,
        min_rows: int,
        *,
        baseline: float | None = None,
        most_past: float = 1.0,
        length: int = 26,
    ) -> None:
        """`level`: log evidence of an alarm. `baseline`: a known share, for example of the training rows;
        with it the first step is judged already. `most_past`: nothing is judged while the median of the past
        shares is larger. `length`: past steps that natural variation is measured from."""
        self._margin, self._level, self._min_rows = margin, level, min_rows
        self._least = LEAST_PAST if baseline is None else 1
        self._past: list[float] = [] if baseline is None else [baseline]
        self._most_past, self._length = most_past, length
        self._evidence = Evidence()

    def add(self, hits: float, rows: float) -> Judged:
        """Judge one more step: `hits` of `rows` customers have the property."""
        if rows < self._min_rows:
            return Judged(np.nan, np.nan, int(rows), 0.0, False)
        share, past = float(hits / rows), np.array(self._past[-self._length :])
        bound, evidence, is_alarm = np.nan, 0.0, False
        if len(past) >= self._least and np.median(past) <= self._most_past:
            bound = self._margin.bound(past)
            log_e = log_e_value(hits, rows, bound)
            evidence = self._evidence.add(log_e)
            is_alarm = evidence >= self._level and log_e > 0
        if is_alarm:
            self._evidence = Evidence()
        else:
            self._past.append(share)
        return Judged(share, float(bound), int(rows), evidence, is_alarm)


def judge(hits: ArrayLike, rows: ArrayLike, history: History) -> Judged:
    """Judge all steps of `hits` and `rows` [steps], and return the newest. No step: nothing is judged."""
    judged = Judged(np.nan, np.nan, 0, 0.0, False)
    for hit, row in zip(np.asarray(hits, dtype=float), np.asarray(rows, dtype=float), strict=True):
        judged = history.add(hit, row)
    return judged


def log_e_value(hits: float, rows: float, bound: float) -> float:
    """Log e-value against "the share is at most `bound`", at most MOST_LOG_E."""
    if not 0 <= bound < POSSIBLE:
        return 0.0
    data = Histogram(np.array([0.0, 1.0]), np.array([rows - hits, hits]))
    return min(float(above(data, np.array([max(bound, 1e-4)]))[0]), MOST_LOG_E)


def _mad(values: Floats) -> float:
    return float(np.median(np.abs(values - np.median(values))))
