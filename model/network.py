"""The deep path: one member of the ensemble, from preprocessed inputs to a logit."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from tabm import TabM
from torch import Tensor, nn

from model.config import ModelConfig
from model.embeddings import Numbers


class Network(nn.Module):
    """float32 [B, inputs] and int64 codes [B, C] -> logit of churn, float32 [B].

    `cardinalities[c]` is the size of the c-th vocabulary. Code 0 has an embedding of zeros that no training
    row uses, so that a category unseen in training has no effect. A missing category is a value of the
    vocabulary. `config` is complete (`training/learn/recipe.py`); `bins` come from `learn_bins`. In training
    mode, a `tabm` returns one logit per sub-model, [B, submodels], because each sub-model is trained
    separately.
    """

    def __init__(
        self,
        inputs: int,
        cardinalities: Sequence[int],
        config: ModelConfig,
        bins: Sequence[Sequence[float]] = (),
    ) -> None:
        super().__init__()
        assert config.hidden is not None
        assert config.dropout is not None
        self.embeddings = nn.ModuleList(_embedding(n, config.embedding_size) for n in cardinalities)
        self.numbers = Numbers(inputs, config, bins)
        width = self.numbers.width + sum(embedding.embedding_dim for embedding in self.embeddings)  # type: ignore[misc]
        self.deep: nn.Module
        if config.architecture == "tabm":
            self.deep = TabM(
                n_num_features=width,
                d_out=1,
                k=config.submodels,
                n_blocks=len(config.hidden),
                d_block=config.hidden[0],
                dropout=config.dropout,
                arch_type="tabm",
                start_scaling_init="random-signs",
            )
        else:
            self.deep = _layers(width, config.hidden, config.dropout)

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        embedded = [embed(categorical[:, c]) for c, embed in enumerate(self.embeddings)]
        inputs = torch.cat([self.numbers(numeric), *embedded], dim=1)
        if not isinstance(self.deep, TabM):
            logit: Tensor = self.deep(inputs).squeeze(-1)
            return logit
        # TabM.forward is these two lines and checks from which torch.export would infer a fixed batch size
        views = inputs.unsqueeze(1).expand(-1, self.deep.backbone.k, -1)
        logits: Tensor = self.deep.output(self.deep.backbone(views)).squeeze(-1)
        return logits if self.training else logits.mean(dim=1)


def _layers(width: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    widths = (width, *hidden)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 1))


def _embedding(cardinality: int, size: int) -> nn.Embedding:
    embedding = nn.Embedding(cardinality + 1, size)
    with torch.no_grad():
        embedding.weight.mul_(size**-0.5)
        embedding.weight[0] = 0.0
    return embedding
