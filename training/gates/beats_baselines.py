"""A network must have a lower loss than each baseline, or tie within a margin."""

from typing import Literal

from pydantic import Field

from training.gates.evidence import Evidence
from training.gates.rule import Rule
from training.gates.sample import Sample, Scores
from training.gates.verdict import Verdict


class BeatsBaselines(Rule):
    """Lower loss than every configured baseline on the same rows; one without scores is a fail.

    The rule uses the confidence interval of the paired difference (training/evaluate/bootstrap.py):
    - the whole interval below zero: the network is better;
    - the interval contains zero, and its upper end is within the margin: a tie on these rows;
    - the whole interval above zero, or its upper end above the margin: refused.
    The margin is the larger of `margin` (in the metric's units) and `margin_share` of the baseline's gain
    over a constant score. A baseline without gain, like the base rate, has to be beaten significantly.
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
        return compare_losses(
            rule, name, sample, sample.baselines[name], self.metric, self.margin, self.margin_share
        )


def compare_losses(
    rule: str,
    name: str,
    sample: Sample,
    rival: Scores,
    metric: str,
    margin: float,
    share: float,
    may_be_worse: bool = False,
) -> Verdict:
    """The verdict on the difference of the model's loss and the rival's, by its confidence interval.

    `rival` is [B]. With `may_be_worse` only the margin counts (non-inferiority): a difference that is
    significant but within the margin is then no reason to refuse.
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
