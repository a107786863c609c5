"""A probability has to mean a frequency, or no offer can be priced by it."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from training.gates.bootstrap import Resampling, cluster_sums, upper_bound
from training.gates.evidence import Evidence
from training.gates.rule import Rule
from training.gates.sample import Sample
from training.gates.verdict import Verdict
from training.metrics import ECE_BINS, calibration_bins


class Calibrated(Rule):
    """Expected calibration error: its upper confidence bound, so that few rows are no excuse."""

    max_ece: float = Field(gt=0, lt=1)

    def judge(self, evidence: Evidence) -> list[Verdict]:
        what = "upper bound of the expected calibration error"
        sample = evidence.sample
        if sample is None or not np.isfinite(sample.score).all():
            return [Verdict.unjudged("calibration", f"{what} is missing or not a number")]
        estimate, bound = ece_bound(sample, sample.how)
        verdict = Verdict.at_most("calibration", what, bound, self.max_ece)
        reason = f"{verdict.reason} (measured {estimate:.4g})"
        return [Verdict(verdict.rule, verdict.passed, verdict.value, verdict.bound, reason)]


def ece_bound(sample: Sample, how: Resampling) -> tuple[float, float]:
    """ECE and its upper bound at `how.confidence`."""
    bins = calibration_bins(sample.score)
    gaps = np.zeros((len(bins), ECE_BINS + 1))
    gaps[np.arange(len(bins)), bins] = sample.score - sample.churned
    gaps[:, ECE_BINS] = 1.0

    def ece(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.abs(sums[..., :ECE_BINS]).sum(axis=-1) / sums[..., ECE_BINS])

    return upper_bound(cluster_sums(sample.customer, gaps), ece, how)
