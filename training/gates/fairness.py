"""Offers and misses spread over groups of people as the configuration demands."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from training.gates.evidence import Evidence
from training.gates.rule import Rule
from training.gates.sample import Parts, Sample
from training.gates.verdict import Verdict


class Fair(Rule):
    """For each of `gates.groups`: how far apart the groups' selection rates and recalls may be.

    Selection rate: share of a group above the threshold. Recall: the same among those who churned. Groups of
    less than `min_rows` rows are not compared. With no groups configured the rule holds, and says so.
    """

    max_selection_gap: float | None = Field(None, gt=0, le=1)
    max_recall_gap: float | None = Field(0.2, gt=0, le=1)
    min_rows: int = Field(100, gt=0)

    def judge(self, evidence: Evidence) -> list[Verdict]:
        if evidence.expected_groups is None:
            return [Verdict.unjudged("fairness", "nobody looked whether groups are configured")]
        if not evidence.expected_groups:
            return [Verdict.not_asked("fairness", "no groups configured")]
        return [
            self._gap(f"fairness.{column}.{name}", column, evidence.sample, name, of, bound)
            for column in evidence.expected_groups
            for name, of, bound in (
                ("selection", everyone, self.max_selection_gap),
                ("recall", churners, self.max_recall_gap),
            )
            if bound is not None
        ] or [Verdict.unjudged("fairness", "groups are configured, but neither gap has a bound")]

    def _gap(
        self,
        rule: str,
        column: str,
        sample: Sample | None,
        name: str,
        of: Callable[[Sample], NDArray[np.bool_]],
        bound: float,
    ) -> Verdict:
        if sample is None or column not in sample.groups or not np.isfinite(sample.score).all():
            return Verdict.unjudged(rule, f"{name} of the groups of {column} is missing")
        parts = sample.groups[column]
        shares = selected_shares(sample, parts, of(sample), self.min_rows)
        if len(shares) < 2:
            return Verdict.unjudged(rule, f"fewer than two groups of {column} have {self.min_rows} rows")
        most, least = max(shares, key=shares.__getitem__), min(shares, key=shares.__getitem__)
        what = f"{name} gap of {column} ({most} {shares[most]:.3f}, {least} {shares[least]:.3f})"
        # a group without churners has no recall: NaN, which is refused
        return Verdict.at_most(rule, what, float(np.ptp(list(shares.values()))), bound)


def everyone(sample: Sample) -> NDArray[np.bool_]:
    return np.ones(len(sample.churned), dtype=bool)


def churners(sample: Sample) -> NDArray[np.bool_]:
    return np.asarray(sample.churned == 1)


def selected_shares(
    sample: Sample, parts: Parts, among: NDArray[np.bool_], min_rows: int
) -> dict[str, float]:
    """Share above the threshold among `among`, in each part of at least `min_rows` rows."""
    inside = among & (parts.code >= 0)
    rows = np.bincount(parts.code[inside], minlength=len(parts.names))
    above = np.bincount(parts.code[inside & (sample.score > sample.threshold)], minlength=len(parts.names))
    return {
        name: float(above[part] / rows[part]) if rows[part] else float("nan")
        for part, name in enumerate(parts.names)
        if parts.rows[part] >= min_rows
    }
