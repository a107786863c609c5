"""A network that a simpler model equals is not worth its upkeep."""

from math import nan
from typing import Literal

from pydantic import Field

from training.gates.rule import Rule
from training.gates.verdict import Evidence, Verdict, number


class BeatsBaselines(Rule):
    """Lower (`metric`) than every configured baseline on the same rows; one that was not scored is a fail.

    `margin`: how far a baseline may be ahead. 0, the default, asks for a win. A table on which logistic
    regression is as good as anything known can grant a tie by naming the difference that does not matter.
    """

    metric: Literal["log_loss", "brier"] = "log_loss"
    margin: float = Field(0.0, ge=0)

    def judge(self, evidence: Evidence) -> list[Verdict]:
        if not evidence.expected_baselines:
            return [Verdict("beats_baselines", False, nan, nan, "no baseline is configured to compare with")]
        own = number(evidence.metrics, self.metric)
        words = self.metric if not self.margin else f"{self.metric} (a lead of {self.margin:g} granted)"
        return [
            Verdict.below(
                f"beats_baselines.{name}",
                f"{words} against {name}",
                own,
                number(evidence.baselines.get(name, {}), self.metric) + self.margin,
            )
            for name in evidence.expected_baselines
        ]
