"""What can be judged of a promoted model: honestly less than before, for nothing runs beside it any more."""

from collections.abc import Sequence
from dataclasses import replace

from rollout.evidence import Arm, Evidence, Window

COUNTS = ("requests", "errors", "slow", "customers", "missing", "stale", "degraded")


def after_promotion(evidence: Evidence) -> Evidence:
    """The windows of the split, to which labels still come, and the watch, with nobody beside it.

    The last window is the watch: all traffic is the candidate's, under whichever name the proxy counts it.
    Rules compare a canary that is alone with what stable did before (BEFORE_AFTER_SHARE of the evidence), in
    the watch as in the stage of 100 %, so that stable's past is used once; scores are not compared, since
    other customers came at other times. A change of the world between the two looks like a change of the
    model: such a fall-back errs on the side of the model that is known.
    """
    if not evidence.windows:
        return evidence
    *split, watch = evidence.windows
    alone = _together([watch.stable, watch.canary])
    return Evidence((*split, Window(100, False, watch.seconds, canary=alone)))


def _together(arms: Sequence[Arm]) -> Arm:
    """Counts alone: a sum of arms has no p99."""
    first, second = arms
    failing = None if first.failing is None or second.failing is None else first.failing + second.failing
    counts = {name: first.__dict__[name] + second.__dict__[name] for name in COUNTS}
    return replace(Arm(), **counts, failing=failing, blocks=first.blocks.plus(second.blocks))
