"""The test rows for the gates: labels, scores, customers, periods, segments and groups."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.evaluate.bootstrap import Interval, Resampling, mean_interval
from training.learn.metrics import log_losses

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Parts:
    """One division of the rows: the part of each row, `code` [B] (negative: none), and the parts' names."""

    code: NDArray[np.int64]
    names: tuple[str, ...]

    @property
    def rows(self) -> NDArray[np.int64]:
        """Number of rows of each part, [parts]."""
        return np.bincount(self.code[self.code >= 0], minlength=len(self.names))


@dataclass(frozen=True)
class Sample:
    """The test rows; all arrays are [B]."""

    customer: NDArray[np.int64]
    """Customer number of each row, from 0; the unit of the bootstrap."""
    churned: Scores
    score: Scores
    threshold: float
    """A customer with a higher score is at risk."""
    periods: Parts
    """Snapshots, moments or calendar periods of the rows (training/gates/slices.py)."""
    segments: Mapping[str, Parts] = field(default_factory=dict)
    groups: Mapping[str, Parts] = field(default_factory=dict)
    baselines: Mapping[str, Scores] = field(default_factory=dict)
    champion: Scores | None = None
    how: Resampling = field(default_factory=Resampling)

    def loss(self, score: Scores, metric: str = "log_loss") -> Scores:
        """Loss of each row, [B]; NaN where the score is NaN."""
        if metric == "brier":
            return (score - self.churned) ** 2
        return log_losses(self.churned, score)

    def excess(self, rival: Scores, metric: str = "log_loss") -> Interval:
        """The difference of the model's mean loss and the rival's on the same rows."""
        return mean_interval(
            self.loss(self.score, metric) - self.loss(rival, metric), self.customer, self.how
        )

    def skill(self, rival: Scores, metric: str = "log_loss") -> float:
        """How far the rival's mean loss is below that of the best constant score; at least 0."""
        constant = np.full(len(self.churned), self.churned.mean())
        gained = float(self.loss(constant, metric).mean() - self.loss(rival, metric).mean())
        return gained if not gained < 0 else 0.0

    @property
    def reference(self) -> tuple[str, Scores] | None:
        """Name and scores of the model that parts of the rows are compared with: the champion, else logistic
        regression, else another baseline; None without any."""
        if self.champion is not None:
            return "the champion", self.champion
        for name in ("logistic_regression", "base_rate", *self.baselines):
            if name in self.baselines:
                return name, self.baselines[name]
        return None
