"""What the rules about means share: how far a mean has moved from stable's, window by window."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rollout.bounded import BINS, Histogram, above, below, excess_mean
from rollout.evidence import Floats
from rollout.sequential import in_order, mean_evidence


@dataclass(frozen=True)
class Pair:
    """Numbers in [0, 1] of one window, of both variants."""

    canary: Floats
    stable: Floats


def hedged(log_e: float) -> float:
    """Half is kept out of the bet: a window that says little costs the others log 2 at most."""
    return float(np.logaddexp(log_e, 0.0) - np.log(2))


def excess(windows: Sequence[Pair], tolerance: float, bins: int = BINS) -> float:
    """Log e-value against mean(canary) <= mean(stable) + tolerance in every window.

    Windows are averaged and not multiplied: the same customers ask in several, with the same scores.
    """
    return float(in_order([window_excess(one, tolerance, bins) for one in windows]))


def window_excess(one: Pair, tolerance: float, bins: int = BINS) -> float:
    """The same of one window."""
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
    """Whether any number is NaN or out of its range."""
    return not bool(np.all((data >= low) & (data <= high)))
