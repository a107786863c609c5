"""Features from a purchase process that is fitted without labels: BG/NBD (Fader, Hardie and Lee, 2005)."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

COLUMNS = 3
PARAMETERS = ("r", "alpha", "a", "b")
EDGE = 1e-9
"""Minimum distance of a probability from 0 and 1, where its logit would be infinite."""


class PurchaseProcess(nn.Module):
    """float64 [B, N] raw numbers -> float64 [B, 3], standardised; NaN where an input is missing.

    The outputs are P(has not churned), the logarithm of the purchase rate of an active customer, and the
    logit of P(no purchase in the horizon). Times are in days. The formulas are those of
    `training/learn/bg_nbd.py`. Parameters, columns and scale are buffers, so the exported program contains
    them.
    """

    columns: Tensor
    units: Tensor
    horizon: Tensor
    bg_nbd: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("columns", torch.zeros(3, dtype=torch.int64))
        self.register_buffer("units", torch.ones(3, dtype=torch.float64))
        self.register_buffer("horizon", torch.ones((), dtype=torch.float64))
        self.register_buffer("bg_nbd", torch.ones(len(PARAMETERS), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(COLUMNS, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(COLUMNS, dtype=torch.float64))

    @classmethod
    def fit(
        cls,
        numeric: NDArray[np.float64],
        parameters: Mapping[str, float],
        columns: Sequence[int],
        units: Sequence[float],
        horizon: float,
    ) -> Self:
        """Make the process from `parameters` (r, alpha, a, b), and learn its scale from training rows [B, N].

        `columns` are the positions of purchase days, age and recency in a row of numbers. `units` are factors
        that convert age and recency to days. `horizon` is in days.
        """
        fitted = cls()
        fitted.columns.copy_(torch.tensor(columns))
        fitted.units.copy_(torch.tensor(units, dtype=torch.float64))
        fitted.horizon.fill_(horizon)
        fitted.bg_nbd.copy_(torch.tensor([parameters[name] for name in PARAMETERS], dtype=torch.float64))
        raw = fitted.raw(torch.from_numpy(numeric))
        known = raw[torch.isfinite(raw).all(dim=1)]
        if len(known):
            spread = known.std(dim=0, correction=0)
            fitted.mean.copy_(known.mean(dim=0))
            fitted.scale.copy_(torch.where(spread > 1e-12, spread, 1.0))  # a constant column
        return fitted

    def forward(self, numeric: Tensor) -> Tensor:
        return (self.raw(numeric) - self.mean) / self.scale

    def raw(self, numeric: Tensor) -> Tensor:
        """The three outputs before they are standardised, float64 [B, 3]."""
        days, age, since = (numeric.index_select(1, self.columns) * self.units).unbind(dim=1)
        repeats, age = (days - 1).clamp(min=0), age.clamp(min=0)
        recency = torch.minimum((age - since).clamp(min=0), age)
        r, alpha, a, b = self.bg_nbd.unbind()
        bought = r + repeats
        odds = (
            torch.log(a)
            - torch.log(b + repeats.clamp(min=1) - 1)
            + bought * (torch.log(alpha + age) - torch.log(alpha + recency))
        )
        # in this model no customer churns before a repeat purchase; adding 0 * odds preserves NaN
        alive = torch.where(repeats > 0, torch.sigmoid(-odds), torch.ones_like(odds) + 0 * odds)
        pause = torch.exp(bought * (torch.log(alpha + age) - torch.log(alpha + age + self.horizon)))
        silent = (1 - alive * (1 - pause)).clamp(EDGE, 1 - EDGE)
        rate = torch.log(bought) - torch.log(alpha + age)
        return torch.stack([alive, rate, torch.logit(silent)], dim=1)
