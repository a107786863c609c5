"""One shape of boosted trees, and the rows that it is trained on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_TREES = 2000
PATIENCE = 50
"""Training stops after this many trees in a row that do not lower the validation log-loss."""

Logits = NDArray[np.float64]


@dataclass(frozen=True)
class Growth:
    """The shape and hyperparameters of boosted trees."""

    leaves: int
    rate: float
    symmetric: bool = False
    """All nodes of a level have one condition (CatBoost); else the best leaf is split next (LightGBM)."""
    randomised: bool = False
    """One random threshold is drawn for each column, instead of the best threshold."""
    from_line: bool = False
    """The trees start from the logits of the logistic regression and fit its residuals."""
    iterations: int = MOST_TREES

    @property
    def name(self) -> str:
        """A name of the shape for records, such as `16_leaves_symmetric`."""
        marks = "_symmetric" * self.symmetric + "_randomised" * self.randomised
        return f"{self.leaves}_leaves{marks}" + "_from_line" * self.from_line


@dataclass(frozen=True)
class TrainingRows:
    """Rows [B, inputs] in the encoding of trees, their labels, and the logits that the trees start from."""

    inputs: NDArray[np.float32]
    churned: NDArray[np.float32]
    start: Logits | None


@dataclass(frozen=True)
class FoldRows:
    """Rows [B, inputs] of one fold in the encoding of trees; `line`: logits of the logistic regression."""

    learned: NDArray[np.float32]
    learned_churned: NDArray[np.float32]
    learned_line: Logits
    judged: NDArray[np.float32]
    judged_churned: NDArray[np.float32]
    judged_line: Logits

    def parts(self, growth: Growth) -> tuple[TrainingRows, TrainingRows]:
        """The training and the validation rows, with the logits that `growth` starts from."""
        lines = (self.learned_line, self.judged_line) if growth.from_line else (None, None)
        return (
            TrainingRows(self.learned, self.learned_churned, lines[0]),
            TrainingRows(self.judged, self.judged_churned, lines[1]),
        )
