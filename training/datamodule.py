"""Rows in memory, handed to Lightning in slices.

A stock DataLoader collates row by row: on 188,560 rows an epoch costs 3.8 s where the arithmetic needs 1.5.
"""

from collections.abc import Iterator

import pytorch_lightning as pl
import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor, Tensor]
"""float32 [B, inputs], int64 [B, C], float32 [B] churned."""


class Batches:
    """One epoch an iteration. With a generator every epoch has another order, the same for the same seed."""

    def __init__(self, tensors: Batch, size: int, generator: torch.Generator | None = None) -> None:
        self._tensors, self._size, self._generator = tensors, size, generator

    def __len__(self) -> int:
        return -(-len(self._tensors[0]) // self._size)

    def __iter__(self) -> Iterator[Batch]:
        rows = len(self._tensors[0])
        order = (
            torch.arange(rows) if self._generator is None else torch.randperm(rows, generator=self._generator)
        )
        numeric, categorical, churned = self._tensors
        for index in torch.split(order, self._size):
            yield numeric[index], categorical[index], churned[index]


class ChurnData(pl.LightningDataModule):
    """Preprocessed rows; preprocessing has nothing to learn from batches, so it is done once."""

    def __init__(self, train: Batch, validation: Batch | None, batch_size: int, seed: int) -> None:
        super().__init__()
        self._train, self._validation = train, validation
        self._batch_size, self._seed = batch_size, seed

    def train_dataloader(self) -> Batches:
        return Batches(self._train, self._batch_size, torch.Generator().manual_seed(self._seed))

    def val_dataloader(self) -> Batches | list[Batch]:
        return [] if self._validation is None else Batches(self._validation, 16_384)
