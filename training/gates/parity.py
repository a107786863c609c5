"""The packaged program must be the trained model."""

from pydantic import Field

from training.gates.evidence import Evidence
from training.gates.rule import Rule
from training.gates.verdict import Verdict


class Parity(Rule):
    """The exported program gives the checkpoint's scores on every test row within `tolerance`, and the
    program in the candidate .mar has the same bytes as the one that was judged."""

    tolerance: float = Field(1e-6, gt=0)

    def judge(self, evidence: Evidence) -> list[Verdict]:
        what = f"largest difference of program and checkpoint over {evidence.rows:,} test rows"
        scores = Verdict.at_most("parity", what, evidence.program_difference, self.tolerance)
        return [scores, self._packaged(evidence.packaged_sha256, evidence.program_sha256)]

    @staticmethod
    def _packaged(packaged: str, judged: str) -> Verdict:
        rule = "parity.archive"
        if not packaged or not judged:
            return Verdict.unjudged(rule, "the program of the candidate archive is missing")
        same = packaged == judged
        words = "is the judged one" if same else f"is {packaged[:12]}, judged was {judged[:12]}"
        return Verdict(rule, same, float(not same), 0.0, f"the program inside the candidate archive {words}")
