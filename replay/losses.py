"""The loss matrix: what a model trained at one moment loses on the customers of another.

With it, every policy of retraining can be evaluated without another training. It holds the loss of each
customer, so that intervals can be clustered by customer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from core.errors import ReplayError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LossMatrix:
    """T moments at which customers are scored and at which a model may be trained; C customers in all."""

    moments: tuple[datetime, ...]
    """[T], ascending."""
    losses: NDArray[np.float32]
    """[T, T, C] in nats: [s, t, c] is the log-loss at moment t of customer c under the model that was trained
    with what was known at moment s. NaN for s > t, and for a customer who was not scored at t."""
    drift: Floats
    """[T, T]: the largest population stability index of an input at moment t, against the newest snapshot
    that the model of moment s was trained on; NaN for s > t."""
    label_lag: int
    """Steps after which the outcome of a score is known."""

    def __post_init__(self) -> None:
        steps = len(self.moments)
        if self.losses.shape[:2] != (steps, steps) or self.drift.shape != (steps, steps):
            raise ReplayError(
                f"loss matrix: {steps} moments need losses [{steps}, {steps}, customers] and drift"
                f" [{steps}, {steps}], not {self.losses.shape} and {self.drift.shape}"
            )
        later = np.arange(steps)
        known = np.isfinite(self.mean) == (later[:, None] <= later)
        if not known.all():
            s, t = np.argwhere(~known)[0]
            raise ReplayError(f"loss matrix: the model of moment {s} has no usable loss at moment {t}")

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """[T]: customers that are scored at each moment."""
        steps = np.arange(len(self.moments))
        return np.asarray(np.isfinite(self.losses[steps, steps]).sum(axis=1))

    @cached_property
    def total(self) -> Floats:
        """[T, T]: the loss of all customers of moment t, in nats; NaN for s > t."""
        return _without_earlier(np.nansum(self.losses, axis=2, dtype=np.float64))

    @cached_property
    def mean(self) -> Floats:
        """[T, T]: the loss a customer, in nats; NaN for s > t or without customers."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.total / np.isfinite(self.losses).sum(axis=2))

    def resampled_totals(self, draws: int, seed: int) -> Floats:
        """[draws, T, T]: `total` for customers drawn with replacement, with all their rows at once."""
        customers = self.losses.shape[2]
        chances = np.full(customers, 1 / customers)
        weights = np.random.default_rng(seed).multinomial(customers, chances, draws).astype(np.float32)
        cells = np.nan_to_num(self.losses).reshape(-1, customers)
        summed = (weights @ cells.T).reshape(draws, *self.losses.shape[:2])
        return _without_earlier(summed.astype(np.float64))

    def save(self, file: Path) -> None:
        """Write the matrix as a compressed NumPy archive without pickled objects."""
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(".part.npz")
        np.savez_compressed(
            fresh,
            moments=np.array([moment.isoformat() for moment in self.moments]),
            losses=self.losses,
            drift=self.drift,
            label_lag=np.array(self.label_lag),
        )
        fresh.replace(file)

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read what `save` wrote. Raises ReplayError for a file that is damaged."""
        try:
            with np.load(file, allow_pickle=False) as stored:
                moments = tuple(datetime.fromisoformat(str(moment)) for moment in stored["moments"])
                return cls(moments, stored["losses"], stored["drift"], int(stored["label_lag"]))
        except (OSError, ValueError, KeyError) as error:
            raise ReplayError(f"{file}: not a loss matrix ({error}); remove it to compute it again") from None


def stacked(rows: Sequence[Sequence[NDArray[np.float32]]]) -> NDArray[np.float32]:
    """[T, T, C] from rows[s][t - s], each [C]."""
    steps, customers = len(rows), len(rows[0][0])
    losses = np.full((steps, steps, customers), np.nan, np.float32)
    for s, row in enumerate(rows):
        losses[s, s:] = row
    return losses


def _without_earlier(cells: Floats) -> Floats:
    """NaN where a model would be evaluated before it was trained."""
    steps = np.arange(cells.shape[-1])
    return np.where(steps[:, None] <= steps, cells, np.nan)
