"""One shape of boosted trees, and the rows that it learns from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_TREES = 2000
PATIENCE = 50
"""Trees in a row that do not lower the log-loss of judged rows."""

Logits = NDArray[np.float64]


@dataclass(frozen=True)
class Growth:
    """One shape of trees."""

    leaves: int
    rate: float
    symmetric: bool = False
    """All nodes of a level ask the same question (CatBoost); else the best leaf grows next (LightGBM)."""
    randomised: bool = False
    """One threshold is drawn at random for each column, instead of the best of all."""
    from_line: bool = False
    """They begin with the logits of the logistic regression and learn what it leaves over."""
    iterations: int = MOST_TREES

    @property
    def name(self) -> str:
        marks = "_symmetric" * self.symmetric + "_randomised" * self.randomised
        return f"{self.leaves}_leaves{marks}" + "_from_line" * self.from_line


@dataclass(frozen=True)
class Teaching:
    """Rows [B, inputs] as trees read them, their outcome, and the logits that the trees begin with."""

    inputs: NDArray[np.float32]
    churned: NDArray[np.float32]
    start: Logits | None


@dataclass(frozen=True)
class FoldRows:
    """Rows [B, inputs] of one fold as the trees read them; `line` is what the regression says of them."""

    learned: NDArray[np.float32]
    learned_churned: NDArray[np.float32]
    learned_line: Logits
    judged: NDArray[np.float32]
    judged_churned: NDArray[np.float32]
    judged_line: Logits

    def parts(self, growth: Growth) -> tuple[Teaching, Teaching]:
        """The learned and the judged rows, with the line where `growth` begins with it."""
        lines = (self.learned_line, self.judged_line) if growth.from_line else (None, None)
        return (
            Teaching(self.learned, self.learned_churned, lines[0]),
            Teaching(self.judged, self.judged_churned, lines[1]),
        )
