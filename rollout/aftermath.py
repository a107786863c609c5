"""What can be judged of a promoted model: honestly less than before, for nothing runs beside it any more."""

from collections.abc import Sequence
from dataclasses import replace

from rollout.evidence import Arm, Evidence, Window

COUNTS = ("requests", "errors", "slow", "customers", "missing", "stale", "degraded")


def after_promotion(evidence: Evidence) -> Evidence:
    """The windows of the split, to which labels still come, and the watch against stable's own past.

    The last window is the watch: all traffic is the candidate's, under whichever name the proxy counts it.
    Its counts are set beside those of what was stable while it was; scores are not, since other customers
    came at other times. A change of the world between the two looks like a change of the model: such a
    fall-back errs on the side of the model that is known.
    """
    if not evidence.windows:
        return evidence
    *split, watch = evidence.windows
    past = _total([window.stable for window in split if window.weight < 100])
    now = _total([watch.stable, watch.canary])
    return Evidence((*split, Window(100, False, watch.seconds, stable=past, canary=now)))


def _total(arms: Sequence[Arm]) -> Arm:
    """Counts alone: a sum of arms has no p99."""
    return replace(Arm(), **{name: sum(getattr(arm, name) for arm in arms) for name in COUNTS})
