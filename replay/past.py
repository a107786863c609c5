"""What is known at one moment of a replay on a loss matrix. A policy reads nothing else."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.errors import ReplayError
from replay.losses import LossMatrix


@dataclass(frozen=True)
class Past:
    """The history up to moment `now` under the trainings so far. A loss that is not known yet is refused."""

    matrix: LossMatrix
    now: int
    trained: tuple[int, ...]
    """Moments of the trainings so far, ascending; 0, the first model, is not one of them."""
    serving: NDArray[np.int64]
    """[now + 1]: the moment at which the model was trained that scored the customers at each moment."""

    @property
    def champion(self) -> int:
        """The training of the newest model, whether it serves already or is still being deployed."""
        return self.trained[-1] if self.trained else 0

    @property
    def matured(self) -> range:
        """The moments whose outcomes are known."""
        return range(max(self.now - self.matrix.label_lag + 1, 0))

    def losses(self, trained: int, at: int) -> NDArray[np.float32]:
        """[rows]: the losses of a model on the customers of a moment, in nats.

        Raises ReplayError for a moment whose outcomes are not known, or that is before the training.
        """
        if at not in self.matured or trained > at:
            raise ReplayError(
                f"moment {self.now}: the losses of model {trained} at moment {at} are not known yet"
            )
        losses = self.matrix.losses[trained, at]
        return np.asarray(losses[np.isfinite(losses)])

    def loss(self, trained: int, at: int) -> float:
        """The mean of `losses`."""
        return float(np.mean(self.losses(trained, at), dtype=np.float64))

    def avoidable(self, at: int) -> NDArray[np.float64]:
        """[rows]: what the model that served lost more than one that is trained at that very moment."""
        served = self.losses(int(self.serving[at]), at).astype(np.float64)
        return served - self.losses(at, at).astype(np.float64)

    def ageing(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Age in steps, moment, and what a model of that age lost more than a fresh one, in nats a customer,
        for all pairs of a training and a later moment whose outcomes are known, [P] each.

        A fresh model is fitted at each moment for comparison, whether it is rolled out or not.
        """
        known = len(self.matured)
        trained, at = np.triu_indices(known, 1)
        mean = self.matrix.mean[:known, :known]
        return at - trained, at, mean[trained, at] - mean[at, at]

    def drift(self) -> float:
        """The largest stability index of an input now, against the champion's newest training snapshot."""
        return float(self.matrix.drift[self.champion, self.now])
