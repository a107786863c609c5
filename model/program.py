"""The whole model as one program: preprocessing, wide path, averaged logits of the members, calibration."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.calibration import Calibration
from model.config import ModelConfig
from model.network import Network
from model.preprocessing import Preprocessing
from model.purchase_process import PurchaseProcess
from model.wide import Blend, Combination, Wide

MAX_BATCH = 4096
"""Largest number of rows in one call of the exported program."""


class Program(nn.Module):
    """float64 [B, N] raw numbers and int64 [B, C] codes -> float64 [B] calibrated churn probability."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        members: Sequence[Network],
        calibration: Calibration,
        wide: Wide | None = None,
        bins: Sequence[Sequence[float]] = (),
    ) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.members = nn.ModuleList(members)
        self.calibration = calibration
        self.wide = wide
        self.blend: Blend | None = None if wide is None else Blend()
        self.bins = bins
        """The bins of the members' embeddings, for `save`."""

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        return torch.sigmoid(self.calibration(self.logit(numeric, categorical)))

    def logit(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        """The logit before calibration, float64 [B]."""
        inputs = self.preprocessing(numeric)
        logits = [member(inputs, categorical).to(torch.float64) for member in self.members]
        deep = torch.stack(logits).mean(dim=0)
        return self.mix(inputs, categorical, deep)

    def combine(self, chosen: Combination) -> None:
        """Set the weights of the paths, only here. Raises ValueError when the program has no wide path."""
        if self.wide is None or self.blend is None:
            raise ValueError("the program has no wide path")
        wide, deep = self.wide.shares, self.blend.weights
        wide.copy_(torch.tensor((chosen.line, chosen.trees), dtype=torch.float64))
        deep.copy_(torch.tensor((1.0, chosen.deep, chosen.shift), dtype=torch.float64))

    def mix(self, inputs: Tensor, categorical: Tensor, deep: Tensor) -> Tensor:
        """Combine the members' averaged logit `deep` [B] with the wide path's logit of the same rows, [B]."""
        if self.wide is None or self.blend is None:
            return deep
        mixed: Tensor = self.blend(self.wide(inputs, categorical).to(torch.float64), deep)
        return mixed

    def save(self, path: Path, cardinalities: Sequence[int], config: ModelConfig) -> None:
        """Write a checkpoint of tensors and plain values, which `torch.load(weights_only=True)` can read."""
        shape = {
            "numeric": len(self.preprocessing.mean),
            "flagged": len(self.preprocessing.flagged),
            "cardinalities": list(cardinalities),
            "members": len(self.members),
            "bins": [list(edges) for edges in self.bins],
            "purchase_process": self.preprocessing.process is not None,
        }
        torch.save(
            {"model": config.model_dump(mode="json"), "shape": shape, "state": self.state_dict()}, path
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load the eager program of a checkpoint, in evaluation mode."""
        content: dict[str, Any] = torch.load(path, weights_only=True)
        config, shape = ModelConfig.model_validate(content["model"]), content["shape"]
        process = PurchaseProcess() if shape["purchase_process"] else None
        preprocessing = Preprocessing(
            shape["numeric"], shape["flagged"], config.log1p, config.scaling, process
        )
        size = preprocessing.outputs, shape["cardinalities"]
        members = [Network(*size, config, shape["bins"]) for _ in range(shape["members"])]
        program = cls(
            preprocessing, members, Calibration(), Wide(*size) if config.wide else None, shape["bins"]
        )
        program.load_state_dict(content["state"])
        return program.eval()


def score(program: nn.Module, numeric: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probabilities float64 [B] of numbers [B, N] and codes [B, C], in calls of at most MAX_BATCH rows."""
    if not len(numeric):
        return np.empty(0)
    with torch.inference_mode():
        parts = [
            program(
                torch.from_numpy(numeric[start : start + MAX_BATCH]),
                torch.from_numpy(codes[start : start + MAX_BATCH]),
            )
            for start in range(0, len(numeric), MAX_BATCH)
        ]
    return np.asarray(torch.cat(parts).numpy())
