"""A network that a simpler model equals is not worth its upkeep; one that it beats must not serve."""

from typing import Literal

from pydantic import Field

from training.gates.evidence import Evidence
from training.gates.rule import Rule
from training.gates.sample import Sample, Scores
from training.gates.verdict import Verdict


class BeatsBaselines(Rule):
    """Lower loss than every configured baseline on the same rows; one that was not scored is a fail.

    Judged by the interval of the paired difference (training/evaluate/bootstrap.py):
    - wholly below zero: the network is better;
    - across zero, and its upper end within the margin: a tie that these rows cannot settle;
    - wholly above zero, or reaching past the margin: refused.
    The margin is the larger of `margin` (in the metric's units) and `margin_share` of what the baseline
    itself gains over a constant: a model that knows nothing has no gain, so it has to be beaten outright.
    """

    metric: Literal["log_loss", "brier"] = "log_loss"
    margin: float = Field(0.0, ge=0)
    margin_share: float = Field(0.05, ge=0, lt=1)

    def judge(self, evidence: Evidence) -> list[Verdict]:
        if not evidence.expected_baselines:
            return [Verdict.unjudged("beats_baselines", "no baseline is configured to compare with")]
        return [self._against(name, evidence.sample) for name in evidence.expected_baselines]

    def _against(self, name: str, sample: Sample | None) -> Verdict:
        rule = f"beats_baselines.{name}"
        if sample is None or name not in sample.baselines:
            return Verdict.unjudged(rule, f"{self.metric} against {name} is missing or not a number")
        return compared(
            rule, name, sample, sample.baselines[name], self.metric, self.margin, self.margin_share
        )


def compared(
    rule: str,
    name: str,
    sample: Sample,
    rival: Scores,
    metric: str,
    margin: float,
    share: float,
    may_be_worse: bool = False,
) -> Verdict:
    """Our loss less the rival's, its interval, and what follows.

    `may_be_worse` leaves it at the margin (plain non-inferiority): a difference that is certain and too
    small to matter is then no reason to refuse.
    """
    found = sample.excess(rival, metric)
    bound = max(margin, share * sample.skill(rival, metric))
    verdict = Verdict.at_most(rule, metric, found.high, bound)
    if not verdict.passed and "missing" in verdict.reason:
        return Verdict(rule, False, found.high, bound, f"{metric} against {name} is missing or not a number")
    interval = f"{found.estimate:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
    worse = found.low > 0
    if found.high < 0:
        words = "better"
    elif not verdict.passed:
        words = f"worse, or perhaps worse than the margin {bound:.4f} allows"
    elif worse:
        words = f"worse, within the margin {bound:.4f}" if may_be_worse else "worse beyond doubt"
    else:
        words = f"a tie within the margin {bound:.4f}"
    passed = verdict.passed and (may_be_worse or not worse)
    return Verdict(rule, passed, found.high, bound, f"{metric} less that of {name}: {interval}, {words}")
