"""Boosted trees as tensors: thresholds and jumps, which a network learns only from many rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

LEVELS = 10
"""No leaf lies deeper; every row takes so many steps, of which those on a leaf stay there."""
FEW = 16
"""Values of a column that trees may take one by one too: rates hide what two columns mean together."""
PARTS = 5
"""In which the rows that teach are divided, so that no row's own outcome is in its category's rate."""


class Trees(nn.Module):
    """float32 [B, inputs] and int64 codes [B, C] -> logit, float64 [B]; as made, one leaf that says zero.

    Categories come as churn rates shrunken to the mean rate; those of few values one by one too. All trees'
    nodes lie in flat tensors [N]; a leaf leads to itself.
    """

    rates: Tensor
    roots: Tensor
    column: Tensor
    threshold: Tensor
    below: Tensor
    above: Tensor
    value: Tensor
    base: Tensor

    def __init__(self, cardinalities: Sequence[int]) -> None:
        super().__init__()
        self.hot = _hot(cardinalities)
        ends = np.cumsum([n + 1 for n in cardinalities], dtype=np.int64).tolist()
        self.starts = [0, *ends][: len(ends)]
        # no tensor is empty: torch.export 2.13 cannot read two empty ones back
        self.register_buffer("rates", torch.zeros(max([1, *ends]), dtype=torch.float32))
        for name in ("roots", "column", "below", "above"):
            self.register_buffer(name, torch.zeros(1, dtype=torch.int64))
        for name in ("threshold", "value"):
            self.register_buffer(name, torch.zeros(1, dtype=torch.float64))
        self.register_buffer("base", torch.zeros((), dtype=torch.float64))

    @property
    def grown(self) -> bool:
        return len(self.value) > 1

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        rated = [self.rates[categorical[:, c] + start] for c, start in enumerate(self.starts)]
        hot = [(categorical[:, c] == code).to(torch.float32) for c, code in self.hot]
        inputs = torch.cat([numeric, *(values.unsqueeze(1) for values in (*rated, *hot))], dim=1)
        node = self.roots.expand(inputs.shape[0], -1)
        for _ in range(LEVELS):
            low = inputs.gather(1, self.column[node]).to(torch.float64) <= self.threshold[node]
            node = torch.where(low, self.below[node], self.above[node])
        logit: Tensor = self.value[node].sum(dim=1) + self.base
        return logit

    def take(self, boosting: Any, rates: Sequence[NDArray[np.float32]], iterations: int) -> None:
        """The first `iterations` trees of a fitted HistGradientBoostingClassifier."""
        self.base.fill_(float(boosting._baseline_prediction.item()))
        nodes = [trees[0].nodes for trees in boosting._predictors[:iterations]]
        if not nodes:
            return
        if rates:
            self.rates.copy_(torch.from_numpy(np.concatenate(rates)))
        sizes = [len(tree) for tree in nodes]
        roots = (np.cumsum(sizes) - sizes).astype(np.int64)
        every = np.concatenate(nodes)
        own, leaf = np.arange(len(every)), every["is_leaf"].astype(bool)
        first = np.repeat(roots, sizes)
        self.roots = torch.from_numpy(roots)
        self.column = torch.from_numpy(np.where(leaf, 0, every["feature_idx"]).astype(np.int64))
        self.threshold = torch.from_numpy(every["num_threshold"].astype(np.float64))
        self.below = torch.from_numpy(np.where(leaf, own, every["left"] + first).astype(np.int64))
        self.above = torch.from_numpy(np.where(leaf, own, every["right"] + first).astype(np.int64))
        self.value = torch.from_numpy(every["value"].astype(np.float64))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        # how many nodes there are is known from the file alone
        for name in ("roots", "column", "threshold", "below", "above", "value"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def rates(
    codes: NDArray[np.int64], churned: NDArray[np.floating], cardinalities: Sequence[int]
) -> list[NDArray[np.float32]]:
    """Of each categorical column, the churn rate of every code, [n + 1].

    Each is shrunken to the mean rate by as many rows as the spread between categories asks for (Micci-Barreca
    2001, the spread by the method of moments): rare categories and identifiers stay at the mean.
    """
    mean = float(churned.mean())
    noise = max(mean * (1 - mean), 1e-12)
    found = []
    for column, size in zip(codes.T, cardinalities, strict=True):
        rows = np.bincount(column, minlength=size + 1).astype(np.float64)
        total = np.bincount(column, churned, minlength=size + 1)
        seen = rows > 0
        square = (rows[seen] * (total[seen] / rows[seen] - mean) ** 2).sum()
        free = rows.sum() - (rows**2).sum() / rows.sum()
        spread = max((square - noise * (seen.sum() - 1)) / max(free, 1.0), 1e-9)
        found.append(((total + noise / spread * mean) / (rows + noise / spread)).astype(np.float32))
    return found


def looked_up(found: Sequence[NDArray[np.float32]], codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """The rates of rows [B, C], and their values one by one where there are few."""
    return np.hstack([_rated(found, codes), _one_by_one(codes, [len(table) - 1 for table in found])])


def apart(
    codes: NDArray[np.int64], churned: NDArray[np.floating], cardinalities: Sequence[int], seed: int
) -> NDArray[np.float32]:
    """The same of rows that teach, each one's rates from the other parts of the rows."""
    part = np.random.default_rng(seed).permutation(len(codes)) % PARTS
    found = np.empty(codes.shape, dtype=np.float32)
    for number in range(PARTS) if codes.shape[1] else ():
        others = part != number
        found[~others] = _rated(rates(codes[others], churned[others], cardinalities), codes[~others])
    return np.hstack([found, _one_by_one(codes, cardinalities)])


def _rated(found: Sequence[NDArray[np.float32]], codes: NDArray[np.int64]) -> NDArray[np.float32]:
    columns = [table[column] for table, column in zip(found, codes.T, strict=True)]
    return np.column_stack(columns) if columns else np.empty((len(codes), 0), dtype=np.float32)


def _one_by_one(codes: NDArray[np.int64], cardinalities: Sequence[int]) -> NDArray[np.float32]:
    hot = _hot(cardinalities)
    found = np.empty((len(codes), len(hot)), dtype=np.float32)
    for place, (column, code) in enumerate(hot):
        found[:, place] = codes[:, column] == code
    return found


def _hot(cardinalities: Sequence[int]) -> list[tuple[int, int]]:
    """Column and code of each value that has an input of its own."""
    # a column of two values is said by its rate already
    return [(c, code) for c, n in enumerate(cardinalities) if 2 < n <= FEW for code in range(1, n + 1)]
