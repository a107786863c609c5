"""Boosted trees as tensors. They represent thresholds, which a network learns only from many rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.target_rates import one_hot_values
from model.tree_formats import Tree

MAX_DEPTH = 10
"""Maximum depth of a leaf."""
NODES = ("roots", "column", "threshold", "below", "above", "value")


class Trees(nn.Module):
    """float32 [B, inputs] and int64 codes [B, C] -> logit, float64 [B]. The default is one leaf with value 0.

    Categories are encoded as churn rates shrunken to the mean rate; columns of few values are one-hot encoded
    as well. The nodes of all trees are in flat tensors [N]; a leaf points to itself. One forest can contain
    several boosters with different weights.
    """

    rates: Tensor
    roots: Tensor
    column: Tensor
    threshold: Tensor
    below: Tensor
    above: Tensor
    value: Tensor

    def __init__(self, cardinalities: Sequence[int]) -> None:
        super().__init__()
        self.values = one_hot_values(cardinalities)
        ends = np.cumsum([n + 1 for n in cardinalities], dtype=np.int64).tolist()
        self.starts = [0, *ends][: len(ends)]
        # no tensor is empty, because torch.export 2.13 cannot load two empty ones
        self.register_buffer("rates", torch.zeros(max([1, *ends]), dtype=torch.float32))
        for name in ("roots", "column", "below", "above"):
            self.register_buffer(name, torch.zeros(1, dtype=torch.int64))
        for name in ("threshold", "value"):
            self.register_buffer(name, torch.zeros(1, dtype=torch.float64))
        self.has_trees = False
        self.trees_by_level: list[int] = []
        """For each level, the number of trees with nodes there. Trees are sorted from the deepest one."""

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        inputs = self._inputs(numeric, categorical)
        node = self.roots.expand(inputs.shape[0], -1)
        for trees in self.trees_by_level:
            moving = node[:, :trees]
            low = inputs.gather(1, self.column[moving]).to(torch.float64) <= self.threshold[moving]
            stepped = torch.where(low, self.below[moving], self.above[moving])
            node = torch.cat([stepped, node[:, trees:]], dim=1)
        logit: Tensor = self.value[node].sum(dim=1)
        return logit

    def _inputs(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        rated = [self.rates[categorical[:, c] + start] for c, start in enumerate(self.starts)]
        single = [(categorical[:, c] == code).to(torch.float32) for c, code in self.values]
        return torch.cat([numeric, *(values.unsqueeze(1) for values in (*rated, *single))], dim=1)

    def load(self, trees: Sequence[Tree], rates: Sequence[NDArray[np.float32]] = ()) -> None:
        """Load the trees of boosters. Their leaves are already multiplied by the booster's weight.

        The logit then equals the weighted sum of the boosters' raw predictions for float32 inputs without
        NaN. `rates` are the churn rates of each categorical column.
        """
        forest = sorted(trees, key=lambda tree: -tree.depth)
        if not forest:
            return
        if rates:
            self.rates.copy_(torch.from_numpy(np.concatenate(rates)))
        starts = np.cumsum([0, *(len(tree.value) for tree in forest)])[:-1]
        self.roots = torch.from_numpy(starts.astype(np.int64))
        for name in ("below", "above"):
            parts = [getattr(tree, name) + start for tree, start in zip(forest, starts, strict=True)]
            setattr(self, name, torch.from_numpy(np.concatenate(parts)))
        for name in ("column", "threshold", "value"):
            setattr(self, name, torch.from_numpy(np.concatenate([getattr(tree, name) for tree in forest])))
        self._derive_walk()

    def _derive_walk(self) -> None:
        """Derive `has_trees` and `trees_by_level` from the nodes. A checkpoint contains only the nodes."""
        self.has_trees = bool((self.value != 0).any())
        self.trees_by_level, level = [], self.roots.unsqueeze(1)
        tree = torch.arange(len(self.roots))
        reached = level.squeeze(1)
        while True:
            inner = self.below[reached] != reached
            if not inner.any():
                return
            self.trees_by_level.append(int(tree[inner].max()) + 1)
            reached, tree = reached[inner], tree[inner]
            reached = torch.cat([self.below[reached], self.above[reached]])
            tree = torch.cat([tree, tree])

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        # the number of nodes is only known from the checkpoint
        for name in NODES:
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._derive_walk()
