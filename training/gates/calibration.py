"""Scores must match observed frequencies, since the profit of an offer is computed from them."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from training.evaluate.bootstrap import Resampling, cluster_sums, upper_bound
from training.gates.evidence import Evidence
from training.gates.rule import Rule
from training.gates.sample import Sample, Scores
from training.gates.verdict import Verdict
from training.learn.metrics import ECE_BINS, calibration_bins, calibration_error


class Calibrated(Rule):
    """Upper confidence bound of the expected calibration error beyond chance.

    On few rows the error of a perfectly calibrated model is far from zero (.06 on 300 rows), since the
    frequencies in the bins vary. The expected error of such a model is subtracted (`ece_by_chance`).
    """

    max_ece: float = Field(gt=0, lt=1)

    def judge(self, evidence: Evidence) -> list[Verdict]:
        what = "upper bound of the expected calibration error beyond chance"
        sample = evidence.sample
        if sample is None or not np.isfinite(sample.score).all():
            return [Verdict.unjudged("calibration", f"{what} is missing or not a number")]
        estimate, bound = ece_bound(sample, sample.how)
        chance = ece_by_chance(sample.score)
        verdict = Verdict.at_most("calibration", what, max(bound - chance, 0.0), self.max_ece)
        reason = f"{verdict.reason} (measured {estimate:.4g}, by chance {chance:.4g})"
        return [Verdict(verdict.rule, verdict.passed, verdict.value, verdict.bound, reason)]


def ece_by_chance(score: Scores) -> float:
    """The expected ECE of a model whose probabilities `score` [B] are perfectly calibrated.

    The gap of a bin is then a sum of independent centred terms: nearly normal, with a mean absolute value of
    sqrt(2 / pi) times its standard deviation.
    """
    variance = np.bincount(calibration_bins(score), weights=score * (1 - score), minlength=ECE_BINS)
    return float(np.sqrt(2 / np.pi * variance).sum() / len(score))


def ece_bound(sample: Sample, how: Resampling) -> tuple[float, float]:
    """ECE and its upper bound at `how.confidence`."""
    bins = calibration_bins(sample.score)
    gaps = np.zeros((len(bins), ECE_BINS + 1))
    gaps[np.arange(len(bins)), bins] = sample.score - sample.churned
    gaps[:, ECE_BINS] = 1.0

    def ece(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return calibration_error(sums[..., :ECE_BINS], sums[..., ECE_BINS])

    return upper_bound(cluster_sums(sample.customer, gaps), ece, how)
