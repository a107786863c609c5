"""What is packaged has to be what was trained."""

from pydantic import Field

from training.gates.rule import Rule
from training.gates.verdict import Evidence, Verdict


class Parity(Rule):
    """The exported program gives the checkpoint's scores on every test row, to `tolerance`."""

    tolerance: float = Field(1e-6, gt=0)

    def judge(self, evidence: Evidence) -> list[Verdict]:
        what = f"largest difference of program and checkpoint over {evidence.rows:,} test rows"
        return [Verdict.at_most("parity", what, evidence.program_difference, self.tolerance)]
