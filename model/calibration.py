"""Calibrates the ensemble's logit, so that its sigmoid is a probability of churn."""

from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor, nn


class Calibration(nn.Module):
    """slope * logit + shift, float64 [B] -> float64 [B]. The default is the identity; `platt` learns both."""

    slope: Tensor
    shift: Tensor

    def __init__(self, slope: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("slope", torch.tensor(slope, dtype=torch.float64))
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float64))

    @classmethod
    def platt(cls, logits: NDArray[np.float64], churned: NDArray[np.integer]) -> Self:
        """Fit slope and shift with the least log-loss (Platt scaling: Platt, 1999) on logits float64 [B] and
        labels 0 or 1 [B]. The slope is positive, so the ranking does not change."""

        def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            scaled = parameters[0] * logits + parameters[1]
            error = expit(scaled) - churned
            value = float(np.mean(np.logaddexp(0.0, scaled) - churned * scaled))
            return value, np.array([np.mean(error * logits), np.mean(error)])

        found = minimize(loss, np.array([1.0, 0.0]), jac=True, bounds=[(1e-3, None), (None, None)])
        return cls(float(found.x[0]), float(found.x[1]))

    @property
    def is_identity(self) -> bool:
        return bool(self.slope == 1.0 and self.shift == 0.0)

    def forward(self, logit: Tensor) -> Tensor:
        return self.slope * logit + self.shift
