"""Limits the differences of selection rate and recall between groups of customers."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from training.evaluate.bootstrap import largest_gap
from training.gates.evidence import Evidence
from training.gates.rule import Rule
from training.gates.sample import Parts, Sample
from training.gates.verdict import Verdict


class Fair(Rule):
    """For each of `gates.groups`: the largest significant gap of selection rate and of recall has a bound.

    Selection rate: share of a group above the threshold. Recall: the same among those who churned. The lower
    bound of the largest gap between two groups is compared, for all pairs at once and by a bootstrap of
    customers (training/evaluate/bootstrap.py), so that chance in small groups fails no model. Groups of less
    than `min_rows` rows, and for recall of less than `min_churners` churners, are not judged, and named in
    the reason; fewer than two remaining groups are a fail. If no groups are configured, the rule passes with
    that reason.
    """

    max_selection_gap: float | None = Field(None, gt=0, le=1)
    max_recall_gap: float | None = Field(0.2, gt=0, le=1)
    min_rows: int = Field(100, gt=0)
    min_churners: int = Field(30, gt=0)

    def judge(self, evidence: Evidence) -> list[Verdict]:
        if evidence.expected_groups is None:
            return [Verdict.unjudged("fairness", "it was not checked whether groups are configured")]
        if not evidence.expected_groups:
            return [Verdict.not_required("fairness", "no groups configured")]
        return [
            self._gap(f"fairness.{column}.{name}", column, evidence.sample, name, of, least, bound)
            for column in evidence.expected_groups
            for name, of, least, bound in (
                ("selection", everyone, 1, self.max_selection_gap),
                ("recall", churners, self.min_churners, self.max_recall_gap),
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
        least: int,
        bound: float,
    ) -> Verdict:
        if sample is None or column not in sample.groups or not np.isfinite(sample.score).all():
            return Verdict.unjudged(rule, f"{name} of the groups of {column} is missing")
        parts, among = sample.groups[column], of(sample)
        enough = (parts.rows >= self.min_rows) & (count_in_parts(parts, among) >= least)
        names = [parts.names[part] for part in np.flatnonzero(enough)]
        few = [f"{parts.names[part]}" for part in np.flatnonzero(~enough & (parts.rows > 0))]
        needed = f"{self.min_rows} rows" + (f" and {least} churners" if least > 1 else "")
        if len(names) < 2:
            return Verdict.unjudged(
                rule, f"{name} of {column} is not judged: fewer than two groups have {needed}"
            )
        place = np.full(len(enough) + 1, -1)  # one more element, so that code -1 (no group) maps to -1
        place[np.flatnonzero(enough)] = np.arange(len(names))
        group = np.where(among, place[parts.code], -1)
        above = (sample.score > sample.threshold).astype(np.float64)
        gap = largest_gap(above, group, len(names), sample.customer, sample.how)
        verdict = Verdict.at_most(rule, f"{name} gap of {column}", gap.low, bound)
        most, fewest = names[gap.high_group], names[gap.low_group]
        surely = "is not surely above" if verdict.passed else "is surely above"
        not_judged = f"; not judged, with fewer than {needed}: {', '.join(few)}" if few else ""
        reason = (
            f"{name} gap of {column} {gap.estimate:.3f} ({most} {gap.rates[gap.high_group]:.3f}, {fewest} "
            f"{gap.rates[gap.low_group]:.3f}; lower bound {gap.low:.3f}) {surely} {bound:g}{not_judged}"
        )
        return Verdict(rule, verdict.passed, verdict.value, verdict.bound, reason)


def everyone(sample: Sample) -> NDArray[np.bool_]:
    """Mask [B] of all rows."""
    return np.ones(len(sample.churned), dtype=bool)


def churners(sample: Sample) -> NDArray[np.bool_]:
    """Mask [B] of the customers who churned."""
    return np.asarray(sample.churned == 1)


def count_in_parts(parts: Parts, among: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rows of the mask `among` [B] in each part, [parts]."""
    return np.bincount(parts.code[among & (parts.code >= 0)], minlength=len(parts.names))
