"""Comparison by blocks of time, for the rules about errors and latency: at the same time, and before with
after."""

from collections.abc import Callable

from rollout.evidence import Arm, Evidence, Tries
from rollout.rules.events import BEFORE_AFTER_SHARE
from rollout.statistics.e_values import mean_evidence
from rollout.statistics.sign_test import excess_in_blocks

TriesOf = Callable[[Arm], Tries]


def side_by_side(evidence: Evidence, tries: TriesOf, tolerance: float) -> float:
    """Log e-value over the blocks of all windows in which both variants have blocks."""
    windows = [(tries(window.canary), tries(window.stable)) for window in evidence.windows]
    windows = [both for both in windows if len(both[0].total) == len(both[1].total)]
    canary, stable = (Tries.joined([both[which] for both in windows]) for which in (0, 1))
    return excess_in_blocks(canary, stable, tolerance)


def before_after(evidence: Evidence, tries: TriesOf, tolerance: float) -> float:
    """Log e-value of the canary at weight 100 and after promotion, compared with stable until then."""
    alone = Tries.joined([tries(window.canary) for window in evidence.windows if window.weight == 100])
    before = Tries.joined([tries(window.stable) for window in evidence.windows if window.weight < 100])
    return one_after_the_other(alone, before, tolerance)


def one_after_the_other(alone: Tries, before: Tries, tolerance: float) -> float:
    """Log e-value. Each block of the canary is paired with a different block of stable, the newest first."""
    alone, before = alone.rows(alone.total > 0), before.rows(before.total > 0).rows(slice(None, None, -1))
    pairs = slice(min(len(alone.total), len(before.total)))
    return excess_in_blocks(alone.rows(pairs), before.rows(pairs), tolerance)


def both(side: float, after: float) -> float:
    """The weighted mean of both, which is an e-process because both are."""
    return float(mean_evidence([side, after], [1 - BEFORE_AFTER_SHARE, BEFORE_AFTER_SHARE]))
