"""The test rows that a model is judged on: labels, scores, who, when, and which parts they fall into."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.evaluate.bootstrap import Interval, Resampling, mean_interval
from training.learn.metrics import log_losses

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Parts:
    """One way to divide the rows: `code` a row (negative: none of them), and the parts' names."""

    code: NDArray[np.int64]
    names: tuple[str, ...]

    @property
    def rows(self) -> NDArray[np.int64]:
        """How many rows each part has."""
        return np.bincount(self.code[self.code >= 0], minlength=len(self.names))


@dataclass(frozen=True)
class Sample:
    customer: NDArray[np.int64]
    """Counted from 0; the unit that is drawn."""
    churned: Scores
    score: Scores
    threshold: float
    """Above it a customer is acted upon."""
    periods: Parts
    """Snapshots, moments or calendar periods of the rows (training/gates/slices.py)."""
    segments: Mapping[str, Parts] = field(default_factory=dict)
    groups: Mapping[str, Parts] = field(default_factory=dict)
    baselines: Mapping[str, Scores] = field(default_factory=dict)
    champion: Scores | None = None
    how: Resampling = field(default_factory=Resampling)

    def loss(self, score: Scores, metric: str = "log_loss") -> Scores:
        """Of each row; NaN where the score is."""
        if metric == "brier":
            return (score - self.churned) ** 2
        return log_losses(self.churned, score)

    def excess(self, rival: Scores, metric: str = "log_loss") -> Interval:
        """By how much our mean loss is above the rival's on the same rows."""
        return mean_interval(
            self.loss(self.score, metric) - self.loss(rival, metric), self.customer, self.how
        )

    def skill(self, rival: Scores, metric: str = "log_loss") -> float:
        """How far the rival's mean loss is below that of the best constant; 0 for one that knows nothing."""
        constant = np.full(len(self.churned), self.churned.mean())
        gained = float(self.loss(constant, metric).mean() - self.loss(rival, metric).mean())
        return gained if not gained < 0 else 0.0

    @property
    def reference(self) -> tuple[str, Scores] | None:
        """Whom a part of the rows is compared with: the champion, else the simplest model that learns."""
        if self.champion is not None:
            return "the champion", self.champion
        for name in ("logistic_regression", "base_rate", *self.baselines):
            if name in self.baselines:
                return name, self.baselines[name]
        return None
