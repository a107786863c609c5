"""Comparison of means by window, for the rules about scores and losses."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rollout.evidence import Floats
from rollout.statistics.bounded_means import BINS, Histogram, above, below, excess_mean
from rollout.statistics.e_values import in_order, mean_evidence


@dataclass(frozen=True)
class Pair:
    """Numbers in [0, 1] of both variants in one window."""

    canary: Floats
    stable: Floats


def excess(windows: Sequence[Pair], tolerance: float, bins: int = BINS) -> float:
    """Log e-value against mean(canary) <= mean(stable) + tolerance in every window.

    Windows are averaged and not multiplied: the same customers occur in several, with the same scores.
    """
    return float(in_order([window_excess(one, tolerance, bins) for one in windows]))


def window_excess(one: Pair, tolerance: float, bins: int = BINS) -> float:
    """Log e-value against mean(canary) <= mean(stable) + tolerance in one window."""
    canary, stable = Histogram.of(one.canary, bins=bins), Histogram.of(one.stable, up=True, bins=bins)
    return float(excess_mean(canary, stable, tolerance))


def shift(windows: Sequence[Pair], tolerance: float) -> float:
    """Log e-value against |mean(canary) - mean(stable)| <= tolerance in every window."""
    mirrored = [Pair(one.stable, one.canary) for one in windows]
    return float(mean_evidence([excess(windows, tolerance), excess(mirrored, tolerance)]))


def paired_excess(differences: Floats, tolerance: float) -> float:
    """Log e-value against mean(differences) <= tolerance; differences in [-1, 1]."""
    data = Histogram.of((differences + 1) / 2)
    return float(above(data, np.array([(1 + tolerance) / 2]))[0])


def paired_shortfall(differences: Floats, tolerance: float) -> float:
    """Log e-value against mean(differences) >= -tolerance."""
    data = Histogram.of((differences + 1) / 2, up=True)
    return float(below(data, np.array([(1 - tolerance) / 2]))[0])


def outside(data: Floats, low: float, high: float) -> bool:
    """Whether a number is NaN or outside of [low, high]."""
    return not bool(np.all((data >= low) & (data <= high)))
