"""Absolute bounds of metrics, at the packaged threshold."""

from pydantic import Field, model_validator

from training.gates.evidence import Evidence
from training.gates.rule import Rule
from training.gates.verdict import Verdict, number


class Floors(Rule):
    """`minimum` and `maximum`: metric -> bound, inclusive."""

    minimum: dict[str, float] = Field(default_factory=dict)
    maximum: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_a_bound(self) -> "Floors":
        if not self.minimum and not self.maximum:
            raise ValueError("give a minimum or a maximum")
        return self

    def judge(self, evidence: Evidence) -> list[Verdict]:
        return [
            *(
                Verdict.at_least(f"floors.{name}", name, number(evidence.metrics, name), bound)
                for name, bound in self.minimum.items()
            ),
            *(
                Verdict.at_most(f"floors.{name}", name, number(evidence.metrics, name), bound)
                for name, bound in self.maximum.items()
            ),
        ]
