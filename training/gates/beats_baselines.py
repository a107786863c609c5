"""A network must have a lower loss than each baseline, or tie within a margin."""

from pydantic import Field

from training.gates.compared import ComparedLoss
from training.gates.evidence import Evidence
from training.gates.sample import Sample
from training.gates.verdict import Verdict


class BeatsBaselines(ComparedLoss):
    """Lower loss than every configured baseline on the same rows; one without scores is a fail.

    The rule uses the confidence interval of the paired difference (training/evaluate/bootstrap.py):
    - the whole interval below zero: the network is better;
    - the interval contains zero, and its upper end is within the margin: a tie on these rows;
    - the whole interval above zero, or its upper end above the margin: refused.
    The margin is the larger of `margin` (in the metric's units) and `margin_share` of the baseline's gain
    over a constant score. A baseline without gain, like the base rate, has to be beaten significantly.
    """

    margin_share: float = Field(0.05, ge=0, lt=1)

    def judge(self, evidence: Evidence) -> list[Verdict]:
        if not evidence.expected_baselines:
            return [Verdict.unjudged("beats_baselines", "no baseline is configured to compare with")]
        return [self._against(name, evidence.sample) for name in evidence.expected_baselines]

    def _against(self, name: str, sample: Sample | None) -> Verdict:
        rule = f"beats_baselines.{name}"
        if sample is None or name not in sample.baselines:
            return Verdict.unjudged(rule, f"{self.metric} against {name} is missing or not a number")
        return self.compare(rule, name, sample, sample.baselines[name])
