"""A table's rows decide, out of fold, how long to learn and how much of each path to hear."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.config import ModelConfig
from model.network import Network
from model.wide import Blend, Wide
from training.config import TrainingConfig
from training.datamodule import ChurnData, Rows
from training.module import ChurnModule
from training.recipe import TABLE_STEPS

FOLDS = 3
FOLDS_UP_TO = 20_000
"""Rows; above, a single held-out fifth is large enough to choose on."""
DOUBLINGS = 5
AT_ONCE = 16_384
PENALTIES = (1.0, 10.0, 100.0)
"""Of the wide path; the larger ones are for tables with more columns or categories than rows can teach."""
ENOUGH = 1e-4
"""A doubling that gains less log-loss is the last."""

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Chosen:
    epochs: int
    penalty: float
    blend: Blend


def cross_fit(
    rows: Rows,
    model: ModelConfig,
    training: TrainingConfig,
    bins: list[list[float]],
    cardinalities: tuple[int, ...],
) -> Chosen:
    """Choose by the log-loss of out-of-fold logits of one member; no other rows than `rows` take part.

    A given `training.epochs` is kept.
    """
    folds = list(_folds(rows[2].numpy(), training.seed))
    held_out = np.concatenate([judged for _, judged in folds])
    churned = rows[2].numpy()[held_out].astype(np.int64)
    wide = {
        penalty: np.concatenate([_wide(rows, fold, penalty, cardinalities) for fold in folds])
        for penalty in PENALTIES
    }
    penalty = min(wide, key=lambda value: _log_loss(churned, wide[value]))
    chosen: Chosen | None = None
    least = np.inf
    for epochs in _ladder(len(rows[0]), training):
        learner = training.model_copy(update={"epochs": epochs})
        deep = np.concatenate([_deep(rows, fold, model, learner, bins, cardinalities) for fold in folds])
        blend, loss = Blend.stack(wide[penalty], deep, churned)
        if chosen is not None and not loss < least - ENOUGH:
            break
        chosen, least = Chosen(epochs, penalty, blend), loss
    assert chosen is not None
    return chosen


def _ladder(rows: int, training: TrainingConfig) -> list[int]:
    if training.epochs is not None:
        return [training.epochs]
    assert training.batch_size is not None
    first = max(1, round(TABLE_STEPS * training.batch_size / rows))
    return [min(first, 64) * 2**number for number in range(DOUBLINGS)]


def _folds(churned: NDArray[np.float32], seed: int) -> Iterator[Fold]:
    """Positions to learn from and to judge, the classes in equal shares."""
    count = FOLDS if len(churned) <= FOLDS_UP_TO else 5
    draw = np.random.default_rng(seed)
    fold = np.empty(len(churned), dtype=np.int64)
    for label in (0, 1):
        members = draw.permutation(np.flatnonzero(churned == label))
        fold[members] = np.arange(len(members)) % count
    for number in range(count if len(churned) <= FOLDS_UP_TO else 1):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def _wide(rows: Rows, fold: Fold, penalty: float, cardinalities: tuple[int, ...]) -> NDArray[np.float64]:
    wide = Wide(rows[0].shape[1], cardinalities)
    learned, judged = (torch.from_numpy(part) for part in fold)
    numeric, categorical, churned = (part[learned] for part in rows)
    wide.solve(numeric, categorical, churned, penalty)
    return _logits(wide, rows, judged)


def _deep(
    rows: Rows,
    fold: Fold,
    model: ModelConfig,
    training: TrainingConfig,
    bins: list[list[float]],
    cardinalities: tuple[int, ...],
) -> NDArray[np.float64]:
    assert training.batch_size is not None
    learned, judged = (torch.from_numpy(part) for part in fold)
    torch.manual_seed(training.seed)
    member = Network(rows[0].shape[1], cardinalities, model, bins)
    numeric, categorical, churned = (part[learned] for part in rows)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=training.epochs,
        gradient_clip_val=training.gradient_clip,
        deterministic=True,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = ChurnData((numeric, categorical, churned), None, training.batch_size, training.seed)
    trainer.fit(ChurnModule(member, training), datamodule=data)
    return _logits(member, rows, judged)


def _logits(path: nn.Module, rows: Rows, judged: Tensor) -> NDArray[np.float64]:
    path.eval()
    with torch.inference_mode():
        parts = [path(rows[0][part], rows[1][part]).double() for part in torch.split(judged, AT_ONCE)]
    return np.asarray(torch.cat(parts).numpy())


def _log_loss(churned: NDArray[np.int64], logits: NDArray[np.float64]) -> float:
    return float(np.mean(np.logaddexp(0.0, logits) - churned * logits))
