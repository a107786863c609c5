"""A model may replace the champion only if it is shown not to be worse."""

from pydantic import Field

from training.gates.compared import ComparedLoss
from training.gates.evidence import Evidence
from training.gates.verdict import Verdict


class NotInferior(ComparedLoss):
    """Not worse than the champion by more than the margin, on the same rows (non-inferiority).

    The whole interval of the paired difference must be below the larger of `margin` and `margin_share` of the
    champion's gain over a constant score. A champion that could not be compared on every row is a fail. If
    there is no champion, the rule passes with that reason.
    """

    margin_share: float = Field(0.02, ge=0, lt=1)

    def judge(self, evidence: Evidence) -> list[Verdict]:
        champion = evidence.champion
        if champion is None:
            return [Verdict.unjudged("champion", "it was not checked whether there is a champion")]
        if champion.state == "none":
            return [Verdict.not_required("champion", "there is no champion to compare with")]
        if champion.state == "unusable":
            return [Verdict.unjudged("champion", f"version {champion.version}: {champion.problem}")]
        if evidence.sample is None or evidence.sample.champion is None:
            return [Verdict.unjudged("champion", f"version {champion.version} was not scored")]
        scores, name = evidence.sample.champion, f"champion version {champion.version}"
        return [self.compare("champion", name, evidence.sample, scores, may_be_worse=True)]
