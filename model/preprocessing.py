"""Preprocesses numbers for the network, fitted to the training rows and part of the exported program."""

from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.purchase_process import COLUMNS, PurchaseProcess

QUANTILES = 1001
BOUND = 10.0
"""Bound of every output, in standard deviations of the training rows. Without it, a flag that is set in one
row of 100,000 would be 300, and a value far outside the training data would dominate the score."""


class Preprocessing(nn.Module):
    """float64 [B, N] raw numbers -> float32 [B, N + M], or [B, N + M + 3] with a purchase process.

    Signed log1p and standardisation, in float64 because amounts and counts differ by orders of magnitude.
    With `scaling="quantile"`, the normal quantile of the value's rank instead of standardisation. A missing
    value (NaN or infinite) becomes 0, the mean. Each of the M columns with missing values in training has an
    indicator as well. Other columns have none, because its weight would be noise. A `process` adds its 3
    outputs; undefined ones are 0, their mean. All outputs are between -BOUND and BOUND.
    """

    mean: Tensor
    scale: Tensor
    flagged: Tensor
    quantiles: Tensor

    def __init__(
        self,
        numeric: int,
        flagged: int,
        log1p: bool = True,
        scaling: str = "standard",
        process: PurchaseProcess | None = None,
    ) -> None:
        super().__init__()
        self.process = process
        self.log1p = log1p
        self.scaling = scaling
        if scaling == "quantile":
            self.register_buffer("quantiles", torch.zeros(numeric, QUANTILES, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(numeric, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(numeric, dtype=torch.float64))
        self.register_buffer("flagged", torch.zeros(flagged, dtype=torch.int64))

    @classmethod
    def fit(
        cls,
        numeric: NDArray[np.float64],
        log1p: bool = True,
        scaling: str = "standard",
        process: PurchaseProcess | None = None,
    ) -> Self:
        """Learn means, scales and columns with missing values only from the training rows, float64 [B, N]."""
        known = np.isfinite(numeric)
        flagged = np.flatnonzero(~known.all(axis=0))
        values = np.where(known, numeric, 0.0)
        if log1p:
            values = np.sign(values) * np.log1p(np.abs(values))
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, values, 0.0).sum(axis=0) / count
        scale = np.sqrt((np.where(known, values - mean, 0.0) ** 2).sum(axis=0) / count)
        fitted = cls(numeric.shape[1], len(flagged), log1p, scaling, process)
        fitted.mean.copy_(torch.from_numpy(mean))
        fitted.scale.copy_(torch.from_numpy(np.where(scale > 1e-12, scale, 1.0)))  # a constant column
        fitted.flagged.copy_(torch.from_numpy(flagged))
        if scaling == "quantile":
            levels = np.linspace(0, 1, QUANTILES)
            for column, row in enumerate(fitted.quantiles):
                seen = values[known[:, column], column]
                row.copy_(torch.from_numpy(np.quantile(seen if len(seen) else np.zeros(1), levels)))
        return fitted

    @property
    def outputs(self) -> int:
        """The width of the network's numeric input."""
        return len(self.mean) + len(self.flagged) + (0 if self.process is None else COLUMNS)

    def forward(self, numeric: Tensor) -> Tensor:
        known = torch.isfinite(numeric)
        values = torch.where(known, numeric, 0.0)
        if self.log1p:
            values = torch.sign(values) * torch.log1p(torch.abs(values))
        scaled = self._normal(values) if self.scaling == "quantile" else (values - self.mean) / self.scale
        values = torch.where(known, scaled, 0.0)
        gaps = (~known).index_select(1, self.flagged).to(torch.float64)
        parts = [values, gaps]
        if self.process is not None:
            derived = self.process(numeric)
            parts.append(torch.where(torch.isfinite(derived), derived, 0.0))
        return torch.cat(parts, dim=1).clamp(-BOUND, BOUND).to(torch.float32)

    def _normal(self, values: Tensor) -> Tensor:
        """The normal quantile of each value's rank [B, N]. Equal values have the mean of their ranks."""
        turned = values.T.contiguous()
        below = torch.searchsorted(self.quantiles, turned)
        rank = (below + torch.searchsorted(self.quantiles, turned, right=True)) / (2.0 * QUANTILES)
        inside = rank.clamp(0.5 / QUANTILES, 1 - 0.5 / QUANTILES)
        normal: Tensor = torch.special.ndtri(inside).T
        return normal.to(torch.float64)
