"""The network: one member of the ensemble, from preprocessed inputs to a logit."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from model.config import ModelConfig


class Network(nn.Module):
    """float32 [B, inputs] and int64 codes [B, C] -> logit of churn, float32 [B].

    `cardinalities[c]` is the size of the c-th vocabulary; code 0 (missing or unknown) has a row of its own
    that starts at zero, so that a category never seen in training moves nothing.
    """

    def __init__(self, inputs: int, cardinalities: Sequence[int], config: ModelConfig) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(_embedding(n, config.embedding_size) for n in cardinalities)
        widths = (inputs + config.embedding_size * len(cardinalities), *config.hidden)
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.Linear(wide, narrow), nn.ReLU(), nn.Dropout(config.dropout)]
        last = nn.Linear(widths[-1], 1)
        self.deep = nn.Sequential(*layers, last)
        self.wide = Wide(inputs, cardinalities) if config.wide else None
        if config.wide:  # the deep path starts silent: it only has to learn what the linear one cannot say
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        embedded = [embed(categorical[:, c]) for c, embed in enumerate(self.embeddings)]
        logit: Tensor = self.deep(torch.cat([numeric, *embedded], dim=1)).squeeze(1)
        if self.wide is not None:
            logit = logit + self.wide(numeric, categorical)
        return logit


class Wide(nn.Module):
    """A logistic regression beside the deep path; it helps where rows are few."""

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

    def solve(self, numeric: Tensor, categorical: Tensor, churned: Tensor) -> None:
        """Set the weights to those of least log-loss on these rows, under scikit-learn's usual L2 penalty."""
        weights = [weight for name, weight in self.named_parameters() if name != "numeric.bias"]
        optimizer = torch.optim.LBFGS(self.parameters(), max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            fit = binary_cross_entropy_with_logits(self(numeric, categorical), churned)
            penalty = torch.stack([weight.square().sum() for weight in weights]).sum()
            value = fit + penalty / (2 * len(churned))
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]


def _embedding(cardinality: int, size: int) -> nn.Embedding:
    embedding = nn.Embedding(cardinality + 1, size)
    with torch.no_grad():
        embedding.weight.mul_(size**-0.5)
        embedding.weight[0] = 0.0
    return embedding
