"""Limits for the candidate archive: size and prediction time."""

from math import isfinite, nan

from pydantic import Field

from training.gates.evidence import Evidence
from training.gates.rule import Rule
from training.gates.verdict import Verdict, number


class Archive(Rule):
    """Size of the candidate .mar, signed as it would be packaged, and time of one batch in the handler's
    scorer. An archive with an invalid signature or part is not measured, and so refused.

    Times vary from run to run, and an archive contains the bill of materials of its machine. So the numbers
    are in measurements.json and in the readable report, but not in gate_report.json and its digest.
    """

    max_megabytes: float = Field(gt=0)
    max_p95_ms: float = Field(gt=0)

    def judge(self, evidence: Evidence) -> list[Verdict]:
        return [
            self._measured(
                "archive.size", "megabytes of the .mar", evidence, "megabytes", self.max_megabytes
            ),
            self._measured("archive.latency", "p95 ms of a batch", evidence, "p95_ms", self.max_p95_ms),
        ]

    @staticmethod
    def _measured(rule: str, what: str, evidence: Evidence, key: str, bound: float) -> Verdict:
        value = number(evidence.archive, key)
        if not isfinite(value):
            return Verdict.unjudged(rule, f"{what}: not measured")
        holds = value <= bound
        words = "at most" if holds else "above"
        return Verdict(rule, holds, nan, bound, f"{what} is {words} {bound:g} (see measurements.json)")
