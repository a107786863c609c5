"""Exports the eager program to a .pt2 file, which runs without this repository."""

import warnings
from pathlib import Path

import torch
from torch import nn

from core.errors import TrainingError
from model.program import MAX_BATCH, Program

TOLERANCE = 1e-6


def export_program(program: Program, path: Path) -> None:
    """Write `program` for batches of 1 to MAX_BATCH rows.

    The file is then loaded and compared with the eager program. Raises TrainingError for a difference above
    TOLERANCE. The file contains no path of this machine.
    """
    program.eval().requires_grad_(False)
    example = _example(program, rows=3)
    rows = torch.export.Dim("rows", min=1, max=MAX_BATCH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own pytree deprecation
        exported = torch.export.export(program, example, dynamic_shapes=({0: rows}, {0: rows}), strict=False)
        for node in exported.graph.nodes:
            # a node's source locations contain paths of this machine, so files of two checkouts would differ
            for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):
                node.meta.pop(key, None)
        torch.export.save(exported, path)
    worst = max(_difference(load_program(path), program, rows) for rows in (1, 2, 257))
    if not worst <= TOLERANCE:
        raise TrainingError(
            f"{path.name}: the exported program differs from the network by {worst:.2g}; report this"
        )


def load_program(path: Path) -> nn.Module:
    """Load an exported program; it has the inputs and outputs of `Program`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.export.load(path).module()


def _example(program: Program, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Example rows with all kinds of values: present, missing, unknown."""
    members = program.members[0]
    generator = torch.Generator().manual_seed(0)
    mean, scale = program.preprocessing.mean, program.preprocessing.scale
    numeric = mean + scale * torch.randn(rows, len(mean), generator=generator, dtype=torch.float64)
    numeric[::2, ::3] = torch.nan
    sizes = [embedding.num_embeddings for embedding in members.embeddings]  # type: ignore[union-attr]
    codes = [torch.randint(0, size, (rows,), generator=generator) for size in sizes]
    categorical = torch.stack(codes, dim=1) if codes else torch.zeros(rows, 0, dtype=torch.int64)
    return numeric, categorical


def _difference(exported: nn.Module, program: Program, rows: int) -> float:
    numeric, categorical = _example(program, rows)
    with torch.inference_mode():
        return float((exported(numeric, categorical) - program(numeric, categorical)).abs().max())
