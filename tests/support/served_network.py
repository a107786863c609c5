"""The network in the archive that tests serve: small, untrained, exported as the real one is."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch


class Network(torch.nn.Module):
    """The arithmetic of the real one: float64 in and out, float32 products in between."""

    def __init__(self, numbers: int, segments: int) -> None:
        super().__init__()
        self.segment = torch.nn.Embedding(segments + 1, 4)
        width = 2 * numbers + 4
        self.members = torch.nn.ModuleList(
            torch.nn.Sequential(
                torch.nn.Linear(width, 128),
                torch.nn.ReLU(),
                torch.nn.Linear(128, 128),
                torch.nn.ReLU(),
                torch.nn.Linear(128, 1),
            )
            for _ in range(3)
        )

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        numbers = torch.nan_to_num(torch.sign(numeric) * torch.log1p(numeric.abs()))
        inputs = torch.cat([numbers, numeric.isnan().double()], dim=1).float()
        inputs = torch.cat([inputs, self.segment(categorical).flatten(1)], dim=1)
        logits = torch.stack([member(inputs).double().squeeze(1) for member in self.members])
        return torch.sigmoid(8 * logits.mean(0))


def export(path: Path, numeric: Sequence[str], segments: int) -> None:
    """Writes the program with random but fixed weights; one categorical input of so many `segments`."""
    torch.manual_seed(7)
    network = Network(len(numeric), segments).eval()
    rows = torch.export.Dim("rows", min=1, max=4096)
    example = (torch.ones(3, len(numeric), dtype=torch.float64), torch.ones(3, 1, dtype=torch.int64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(network, example, dynamic_shapes=({0: rows}, {0: rows})), path)
