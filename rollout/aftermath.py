"""The evidence of a promoted model, which has no stable model at the same time to be compared with."""

from collections.abc import Sequence
from dataclasses import replace

from rollout.evidence import COUNTS_AFTER_PROMOTION, Arm, Evidence, Window


def after_promotion(evidence: Evidence) -> Evidence:
    """The windows of the split, for which labels still arrive, and the watch as a window of weight 100.

    The last window is the watch: all traffic is the candidate's, under both names by which the proxy counts
    it. Rules compare a canary alone with stable before (BEFORE_AFTER_SHARE of the evidence), in the watch as
    in the stage of 100 %, so that stable's past is used once. Scores are not compared, since different
    customers came at different times. A change of circumstances looks like a change of the model here: the
    candidate is then taken back without need, which is the safe side.
    """
    if not evidence.windows:
        return evidence
    *split, watch = evidence.windows
    alone = _together([watch.stable, watch.canary])
    return Evidence((*split, Window(100, False, watch.seconds, canary=alone)))


def _together(arms: Sequence[Arm]) -> Arm:
    """The sum of two arms: counts only, since a sum has no p99."""
    first, second = arms
    failing = None if first.failing is None or second.failing is None else first.failing + second.failing
    counts = {name: getattr(first, name) + getattr(second, name) for name in COUNTS_AFTER_PROMOTION}
    return replace(Arm(), **counts, failing=failing, blocks=first.blocks.plus(second.blocks))
