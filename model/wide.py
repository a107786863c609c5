"""The wide path (a logistic regression and trees on the network's inputs) and its blend with the deep one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from model.trees import Trees


@dataclass(frozen=True)
class Combination:
    """Weights of the paths' logits and a shift, chosen by stacking. `Program.combine` applies them.

    `line` is the weight of the logistic regression. No weight is negative. An absent path has weight 0.
    """

    line: float = 0.0
    trees: float = 0.0
    deep: float = 0.0
    shift: float = 0.0


class Wide(nn.Module):
    """float32 [B, inputs] and int64 codes [B, C] -> logit, float64 [B]. Strong when there are few rows.

    By default it is the logistic regression alone. With trees, `shares` are the weights of both.
    """

    shares: Tensor

    def __init__(self, inputs: int, cardinalities: Sequence[int]) -> None:
        super().__init__()
        self.numeric = nn.Linear(inputs, 1)
        self.effects = nn.ModuleList(nn.Embedding(n + 1, 1) for n in cardinalities)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        self.trees = Trees(cardinalities)
        self.register_buffer("shares", torch.tensor((1.0, 0.0), dtype=torch.float64))

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        line = self.shares[0] * self.line(numeric, categorical)
        if not self.trees.has_trees:
            return line
        logit: Tensor = line + self.shares[1] * self.trees(numeric, categorical)
        return logit

    def line(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        """The logit of the logistic regression, float32 [B]."""
        logit: Tensor = self.numeric(numeric).squeeze(1)
        for c, effect in enumerate(self.effects):
            logit = logit + effect(categorical[:, c]).squeeze(1)
        return logit

    def solve(self, numeric: Tensor, categorical: Tensor, churned: Tensor, penalty: float = 1.0) -> None:
        """Fit the regression: minimise log-loss plus penalty / 2 times the squares of its weights.

        `numeric` is float32 [B, inputs], `categorical` int64 [B, C], `churned` float32 [B]. The bias has no
        penalty. A penalty of 1 is scikit-learn's default.
        """
        weights = [weight for name, weight in self.named_parameters() if name != "numeric.bias"]
        optimizer = torch.optim.LBFGS(self.parameters(), max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            fit = binary_cross_entropy_with_logits(self.line(numeric, categorical), churned)
            squares = torch.stack([weight.square().sum() for weight in weights]).sum()
            value = fit + penalty * squares / (2 * len(churned))
            value.backward()  # type: ignore[no-untyped-call]
            return value

        with torch.enable_grad():
            optimizer.step(loss)  # type: ignore[no-untyped-call]


class Blend(nn.Module):
    """a * wide + b * deep + shift, float64 [B]. The default is their mean. No weight is negative."""

    weights: Tensor

    def __init__(self, weights: Sequence[float] = (0.5, 0.5, 0.0)) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float64))

    @classmethod
    def stack(
        cls, wide: NDArray[np.float64], deep: NDArray[np.float64], churned: NDArray[np.integer]
    ) -> tuple[Self, float]:
        """Fit the weights on out-of-fold logits [B] by least log-loss; return the blend and its log-loss.

        Stacking: Wolpert, 1992.
        """
        weights, losses = stacked(np.column_stack([wide, deep]), churned)
        return cls(weights), float(losses.mean())

    def forward(self, wide: Tensor, deep: Tensor) -> Tensor:
        return self.weights[0] * wide + self.weights[1] * deep + self.weights[2]


SHRINKAGE = 3.0
"""Penalty on unequal weights, in rows. With few rows, differences between weights are mostly chance."""


def stacked(
    paths: NDArray[np.float64], churned: NDArray[np.integer]
) -> tuple[list[float], NDArray[np.float64]]:
    """Fit P weights and a shift on out-of-fold logits [B, P]; return them and the log-loss of each row [B].

    They minimise the log-loss with a penalty on unequal weights. No weight is negative (stacking: Wolpert,
    1992; Breiman, 1996).
    """
    logits = np.column_stack([paths, np.ones(len(paths))])
    count = paths.shape[1]
    equal = np.append(np.full(count, 1 / count), 0.0)
    penalty = np.append(np.full(count, SHRINKAGE / len(paths)), 0.0)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        mixed, off = logits @ weights, weights - equal
        value = float(np.mean(np.logaddexp(0.0, mixed) - churned * mixed) + penalty @ off**2)
        return value, logits.T @ (expit(mixed) - churned) / len(churned) + 2 * penalty * off

    found = minimize(loss, equal, jac=True, bounds=[(0.0, None)] * count + [(None, None)])
    mixed = logits @ found.x
    return [float(weight) for weight in found.x], np.logaddexp(0.0, mixed) - churned * mixed
