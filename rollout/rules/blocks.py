"""What the rules about moments share: the canary beside stable, and after it, in blocks of time."""

from collections.abc import Callable

from rollout.blocks import excess_in_blocks
from rollout.evidence import Arm, Evidence, Tries
from rollout.rules.events import BEFORE_AFTER_SHARE
from rollout.sequential import mean_evidence

TriesOf = Callable[[Arm], Tries]


def side_by_side(evidence: Evidence, tries: TriesOf, tolerance: float) -> float:
    """Log e-value over all blocks in which both variants were asked."""
    windows = [(tries(window.canary), tries(window.stable)) for window in evidence.windows]
    windows = [both for both in windows if len(both[0].asked) == len(both[1].asked)]
    canary, stable = (Tries.joined([both[which] for both in windows]) for which in (0, 1))
    return excess_in_blocks(canary, stable, tolerance)


def before_after(evidence: Evidence, tries: TriesOf, tolerance: float) -> float:
    """The canary alone, at weight 100 and after promotion, against stable until then."""
    alone = Tries.joined([tries(window.canary) for window in evidence.windows if window.weight == 100])
    before = Tries.joined([tries(window.stable) for window in evidence.windows if window.weight < 100])
    return one_after_the_other(alone, before, tolerance)


def one_after_the_other(alone: Tries, before: Tries, tolerance: float) -> float:
    """Each block of the canary is set beside one of stable's that no other was, the newest first."""
    alone, before = alone.rows(alone.asked > 0), before.rows(before.asked > 0).rows(slice(None, None, -1))
    pairs = slice(min(len(alone.asked), len(before.asked)))
    return excess_in_blocks(alone.rows(pairs), before.rows(pairs), tolerance)


def both(side: float, after: float) -> float:
    """Each datum is used once in either: their mean is an e-process, as both are."""
    return float(mean_evidence([side, after], [1 - BEFORE_AFTER_SHARE, BEFORE_AFTER_SHARE]))
