"""A probability has to mean a frequency, or no offer can be priced by it."""

from pydantic import Field

from training.gates.rule import Rule
from training.gates.verdict import Evidence, Verdict, number


class Calibrated(Rule):
    """Expected calibration error of the test scores (15 equal-width bins)."""

    max_ece: float = Field(gt=0, lt=1)

    def judge(self, evidence: Evidence) -> list[Verdict]:
        what = "expected calibration error"
        return [Verdict.at_most("calibration", what, number(evidence.metrics, "ece"), self.max_ece)]
