"""Embeddings of numbers for the deep path: none, piecewise-linear or periodic (rtdl_num_embeddings)."""

import warnings
from collections.abc import Sequence

import torch
from rtdl_num_embeddings import PeriodicEmbeddings, PiecewiseLinearEmbeddings
from torch import Tensor, nn

from model.config import ModelConfig

MAX_SAMPLED_ROWS = 100_000
"""Rows from which the edges of bins are computed. More rows do not change them noticeably."""


class Numbers(nn.Module):
    """float32 [B, inputs] -> float32 [B, width] (Gorishniy et al., 2022)."""

    def __init__(self, inputs: int, config: ModelConfig, bins: Sequence[Sequence[float]]) -> None:
        super().__init__()
        size = config.numeric_embedding_size
        self.embedding: nn.Module | None = None
        if inputs and config.numeric_embedding == "piecewise_linear":
            edges = [torch.tensor(edge, dtype=torch.float32) for edge in bins]
            with warnings.catch_warnings():  # one bin is correct for a column of two values
                warnings.filterwarnings("ignore", message="The .*feature has just two bin edges")
                self.embedding = PiecewiseLinearEmbeddings(edges, size, activation=False, version="B")
        elif inputs and config.numeric_embedding == "periodic":
            self.embedding = PeriodicEmbeddings(
                inputs, size, n_frequencies=24, frequency_init_scale=0.1, lite=True
            )
        self.width = inputs if self.embedding is None else inputs * size

    def forward(self, numeric: Tensor) -> Tensor:
        return numeric if self.embedding is None else self.embedding(numeric).flatten(1)


def learn_bins(numeric: Tensor, config: ModelConfig) -> list[list[float]]:
    """Edges of the bins of each preprocessed column [B, inputs]: at least two distinct quantiles.

    Returns an empty list when `config` does not use bins.
    """
    if config.numeric_embedding != "piecewise_linear":
        return []
    step = -(-len(numeric) // MAX_SAMPLED_ROWS)
    levels = torch.linspace(0, 1, config.bins + 1)
    edges = []
    for column in numeric[::step].T:
        found = torch.unique(torch.quantile(column, levels))
        # edges that are almost equal would make the embedding too steep between them
        distinct = torch.cat([found[:1], found[1:][found.diff() > 1e-4]])
        edges.append(distinct.tolist() if len(distinct) > 1 else [float(found[0]) - 1, float(found[0]) + 1])
    return edges
