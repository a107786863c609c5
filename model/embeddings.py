"""Numbers as the deep path reads them: plain, piecewise-linear or periodic (rtdl_num_embeddings)."""

import warnings
from collections.abc import Sequence

import torch
from rtdl_num_embeddings import PeriodicEmbeddings, PiecewiseLinearEmbeddings
from torch import Tensor, nn

from model.config import ModelConfig

SAMPLE = 100_000
"""Rows whose quantiles become bins; more move no edge that matters."""


class Numbers(nn.Module):
    """float32 [B, inputs] -> float32 [B, width]."""

    def __init__(self, inputs: int, config: ModelConfig, bins: Sequence[Sequence[float]]) -> None:
        super().__init__()
        size = config.numeric_embedding_size
        self.embedding: nn.Module | None = None
        if inputs and config.numeric_embedding == "piecewise_linear":
            edges = [torch.tensor(edge, dtype=torch.float32) for edge in bins]
            with warnings.catch_warnings():  # a column of two values has one bin; that is as it should be
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
    """Edges of each preprocessed column [B, inputs]: distinct quantiles, two at least; none where unused."""
    if config.numeric_embedding != "piecewise_linear":
        return []
    step = -(-len(numeric) // SAMPLE)
    levels = torch.linspace(0, 1, config.bins + 1)
    edges = []
    for column in numeric[::step].T:
        found = torch.unique(torch.quantile(column, levels))
        # two values that are almost one would make a cliff of what lies between them
        apart = torch.cat([found[:1], found[1:][found.diff() > 1e-4]])
        edges.append(apart.tolist() if len(apart) > 1 else [float(found[0]) - 1, float(found[0]) + 1])
    return edges
