"""The wide path: a logistic regression on the network's own inputs, and how it is mixed with the deep one."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits


class Wide(nn.Module):
    """float32 [B, inputs] and int64 codes [B, C] -> logit, float32 [B]. Where rows are few, hard to beat."""

    def __init__(self, inputs: int, cardinalities: Sequence[int]) -> None:
        super().__init__()
        self.numeric = nn.Linear(inputs, 1)
        self.effects = nn.ModuleList(nn.Embedding(n + 1, 1) for n in cardinalities)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        logit: Tensor = self.numeric(numeric).squeeze(1)
        for c, effect in enumerate(self.effects):
            logit = logit + effect(categorical[:, c]).squeeze(1)
        return logit

    def solve(self, numeric: Tensor, categorical: Tensor, churned: Tensor, penalty: float = 1.0) -> None:
        """Set the weights to those of least log-loss on these rows, plus penalty / 2 times their squares.

        A penalty of 1 is scikit-learn's usual one.
        """
        weights = [weight for name, weight in self.named_parameters() if name != "numeric.bias"]
        optimizer = torch.optim.LBFGS(self.parameters(), max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            fit = binary_cross_entropy_with_logits(self(numeric, categorical), churned)
            squares = torch.stack([weight.square().sum() for weight in weights]).sum()
            value = fit + penalty * squares / (2 * len(churned))
            value.backward()  # type: ignore[no-untyped-call]
            return value

        with torch.enable_grad():
            optimizer.step(loss)  # type: ignore[no-untyped-call]


class Blend(nn.Module):
    """a * wide + b * deep + shift, float64 [B]; as made, their mean. Neither weight is negative."""

    weights: Tensor

    def __init__(self, weights: Sequence[float] = (0.5, 0.5, 0.0)) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float64))

    @classmethod
    def stack(
        cls, wide: NDArray[np.float64], deep: NDArray[np.float64], churned: NDArray[np.integer]
    ) -> tuple[Self, float]:
        """Weights of least log-loss on out-of-fold logits, and that log-loss (stacking: Wolpert, 1992)."""
        logits = np.column_stack([wide, deep, np.ones(len(wide))])

        def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            mixed = logits @ weights
            value = float(np.mean(np.logaddexp(0.0, mixed) - churned * mixed))
            return value, logits.T @ (expit(mixed) - churned) / len(churned)

        bounds = [(0.0, None), (0.0, None), (None, None)]
        found = minimize(loss, np.array([0.5, 0.5, 0.0]), jac=True, bounds=bounds)
        return cls([float(weight) for weight in found.x]), float(found.fun)

    def forward(self, wide: Tensor, deep: Tensor) -> Tensor:
        return self.weights[0] * wide + self.weights[1] * deep + self.weights[2]
