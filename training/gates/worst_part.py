"""No segment and no period may be significantly worse than the reference, however good the average is."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from training.evaluate.bootstrap import simultaneous_means
from training.gates.evidence import Evidence
from training.gates.rule import Rule
from training.gates.sample import Parts, Sample
from training.gates.verdict import Verdict


class WorstSegment(Rule):
    """In no segment is the log-loss significantly above the reference's by more than `margin`.

    The reference is the champion, else logistic regression, else the base rate. The bounds hold for all of
    `gates.segments` at once, so that many segments cause no false alarm. Segments of less than `min_rows`
    rows are not judged; their number is in the reason.
    """

    margin: float = Field(0.01, ge=0)
    min_rows: int = Field(100, gt=0)

    def judge(self, evidence: Evidence) -> list[Verdict]:
        if evidence.sample is None:
            return [Verdict.unjudged("worst_segment", "log-loss of the segments is missing")]
        if not evidence.sample.segments:
            return [Verdict.not_required("worst_segment", "no segments are configured")]
        return [
            worst_part("worst_segment", evidence.sample, evidence.sample.segments, self.margin, self.min_rows)
        ]


class Stable(Rule):
    """The same for the test periods: a model that fits only one of them will not fit the next.

    Periods of less than `min_rows` rows are not judged; their number is in the reason. If there is only one
    period, or none that can be judged, the rule passes with that reason.
    """

    margin: float = Field(0.01, ge=0)
    min_rows: int = Field(100, gt=0)

    def judge(self, evidence: Evidence) -> list[Verdict]:
        if evidence.sample is None:
            return [Verdict.unjudged("stability", "log-loss of the periods is missing")]
        periods = evidence.sample.periods
        if len(periods.names) < 2:
            return [
                Verdict.not_required("stability", "all rows are of one period: there are none to compare")
            ]
        if not (periods.rows >= self.min_rows).any():
            return [
                Verdict.not_required(
                    "stability",
                    f"not judged: none of the {len(periods.names)} periods has {self.min_rows} rows",
                )
            ]
        divisions = {"period": periods}
        return [worst_part("stability", evidence.sample, divisions, self.margin, self.min_rows)]


def worst_part(
    rule: str, sample: Sample, divisions: Mapping[str, Parts], margin: float, min_rows: int
) -> Verdict:
    """The verdict on the part with the largest lower bound of the excess log-loss, against `margin`."""
    if sample.reference is None:
        return Verdict.unjudged(rule, "there is no champion and no baseline to compare with")
    name, rival = sample.reference
    excess = sample.loss(sample.score) - sample.loss(rival)
    if not np.isfinite(excess).all():
        return Verdict.unjudged(rule, f"log-loss against {name} is missing or not a number")
    names: list[str] = []
    judged: list[tuple[NDArray[np.int64], int]] = []
    small = 0
    for column, parts in divisions.items():
        large = np.flatnonzero(parts.rows >= min_rows)
        small += len(parts.names) - len(large)
        if len(large):
            # one more element, so that code -1 (no part) maps to -1
            place = np.full(len(parts.names) + 1, -1)
            place[large] = np.arange(len(large))
            judged.append((place[parts.code], len(large)))
            names += [f"{column} {parts.names[part]}" for part in large]
    if not names:
        return Verdict.unjudged(rule, f"no part has {min_rows} rows; lower min_rows or choose larger parts")
    means, low = simultaneous_means(excess, judged, sample.customer, sample.how)
    worst = int(np.argmax(low))
    found = Verdict.at_most(rule, "log-loss", float(low[worst]), margin)
    surely = "is surely above" if not found.passed else "is not surely above"
    left_out = f"; {small} of fewer than {min_rows} rows not judged" if small else ""
    reason = (
        f"worst of {len(names)}: {names[worst]}, log-loss {means[worst]:+.4f} against {name} "
        f"(lower bound {low[worst]:+.4f}) {surely} the margin {margin:g}{left_out}"
    )
    return Verdict(rule, found.passed, found.value, found.bound, reason)
