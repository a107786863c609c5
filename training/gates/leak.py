"""Label leakage: a metric too good to be real means that the features contain the label."""

from math import nan

from pydantic import Field

from training.gates.evidence import Evidence
from training.gates.rule import Rule
from training.gates.verdict import Verdict, number


class Leak(Rule):
    """Upper bounds for the AUROC of the model and of each single feature."""

    max_auroc: float = Field(gt=0.5, le=1)
    max_single_feature_auroc: float = Field(gt=0.5, le=1)

    def judge(self, evidence: Evidence) -> list[Verdict]:
        model = Verdict.at_most("leak.model", "auroc", number(evidence.metrics, "auroc"), self.max_auroc)
        found = evidence.single_feature_auroc
        # a NaN is worse than any number: max() would drop it silently
        worst = max(
            found,
            key=lambda name: (number(found, name) != number(found, name), number(found, name)),
            default="",
        )
        value = number(found, worst) if worst else nan
        what = f"auroc of {worst} alone" if worst else "auroc of each feature alone"
        return [model, Verdict.at_most("leak.feature", what, value, self.max_single_feature_auroc)]
