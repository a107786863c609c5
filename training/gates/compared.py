"""Compares the loss of the model with that of another one on the same rows, by a confidence interval."""

from typing import Literal

from pydantic import Field

from training.gates.rule import Rule
from training.gates.sample import Sample, Scores
from training.gates.verdict import Verdict


class ComparedLoss(Rule):
    """The metric and the margin of a rule that compares losses.

    The margin is the larger of `margin` (in the metric's units) and `margin_share` of the other model's gain
    over a constant score.
    """

    metric: Literal["log_loss", "brier"] = "log_loss"
    margin: float = Field(0.0, ge=0)
    margin_share: float = Field(0.05, ge=0, lt=1)

    def compare(
        self, rule: str, name: str, sample: Sample, rival: Scores, may_be_worse: bool = False
    ) -> Verdict:
        """The verdict on the difference of the model's loss and the loss of the scores `rival` [B].

        With `may_be_worse` only the margin counts (non-inferiority): a difference that is significant but
        within the margin is then no reason to refuse.
        """
        metric = self.metric
        found = sample.excess(rival, metric)
        bound = max(self.margin, self.margin_share * sample.skill(rival, metric))
        verdict = Verdict.at_most(rule, metric, found.high, bound)
        if not verdict.passed and "missing" in verdict.reason:
            missing = f"{metric} against {name} is missing or not a number"
            return Verdict(rule, False, found.high, bound, missing)
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
