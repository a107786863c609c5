"""The rows themselves decide, out of fold, how long to learn and how much of each path to hear.

Folds of a log are of customers: a customer's snapshots resemble each other, and a path that has seen one of
them would be believed about the next.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.config import ModelConfig
from model.network import Network
from model.wide import Combination, Wide, stacked
from training.boosting import Growth, growths, held_out
from training.config import TrainingConfig
from training.datamodule import ChurnData, Rows
from training.module import ChurnModule
from training.recipe import TABLE_STEPS

FOLDS = 3
FEW = 2_000
"""Rows; up to them each fold is a fifth, since a third less would teach too little."""
FOLDS_UP_TO = 20_000
"""Rows; above, a single held-out fifth is large enough to choose on."""
DOUBLINGS = 3
AT_ONCE = 16_384
PENALTIES = (1.0, 10.0, 100.0)
"""Of the line; the larger ones are for tables with more columns or categories than rows can teach."""
ENOUGH = 1e-4
"""A doubling that gains less log-loss is the last."""

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]
Logits = NDArray[np.float64]


@dataclass(frozen=True)
class Chosen:
    epochs: int
    penalty: float
    combination: Combination
    growth: Growth | None = None
    """Of the trees; None: there are none."""


def cross_fit(
    rows: Rows,
    model: ModelConfig,
    training: TrainingConfig,
    bins: list[list[float]],
    cardinalities: tuple[int, ...],
    customers: NDArray[Any],
) -> Chosen:
    """Choose by the log-loss of out-of-fold logits of one member; no other rows than `rows` take part.

    `customers` says whose each row is. The deep path is heard only where it gains more than one standard
    error of that gain: what it says on few rows is dear, and where line and trees say all there is, noise.
    A given `training.epochs` is kept.
    """
    folds = list(_folds(rows[2].numpy(), customers, training.seed))
    judged = np.concatenate([judged for _, judged in folds])
    churned = rows[2].numpy()[judged].astype(np.int64)
    penalty, line = _best_line(rows, folds, churned, cardinalities)
    growth, trees = None, np.empty((len(line), 0))
    if model.trees:
        growth, grown = _best_trees(rows, folds, churned, training.seed, cardinalities)
        trees = grown[:, None]
    shallow = np.column_stack([line, trees])
    without, losses = stacked(shallow, churned)
    best: tuple[int, list[float], Logits] | None = None
    for epochs in _ladder(len(rows[0]), training):
        learner = training.model_copy(update={"epochs": epochs})
        deep = np.concatenate([_deep(rows, fold, model, learner, bins, cardinalities) for fold in folds])
        weights, with_deep = stacked(np.column_stack([shallow, deep]), churned)
        if best is not None and not with_deep.mean() < best[2].mean() - ENOUGH:
            break
        best = epochs, weights, with_deep
    assert best is not None
    epochs, (*shares, of_deep, shift), with_deep = best
    gain = losses - with_deep
    if not gain.mean() > gain.std() / np.sqrt(len(gain)):
        (*shares, shift), of_deep = without, 0.0
        epochs = training.epochs or 1  # nobody will hear it
    of_line, of_trees = (*shares, 0.0)[:2]
    return Chosen(epochs, penalty, Combination(of_line, of_trees, of_deep, shift), growth)


def _best_line(
    rows: Rows, folds: list[Fold], churned: NDArray[np.int64], cardinalities: tuple[int, ...]
) -> tuple[float, Logits]:
    found = {
        penalty: np.concatenate([_line(rows, fold, penalty, cardinalities) for fold in folds])
        for penalty in PENALTIES
    }
    penalty = min(found, key=lambda value: _log_loss(churned, found[value]))
    return penalty, found[penalty]


def _best_trees(
    rows: Rows, folds: list[Fold], churned: NDArray[np.int64], seed: int, cardinalities: tuple[int, ...]
) -> tuple[Growth, Logits]:
    least, best = np.inf, None
    for growth in growths(len(rows[0])):
        parts = [held_out(rows, *fold, growth, seed, cardinalities) for fold in folds]
        logits = np.concatenate([part for part, _ in parts])
        loss = _log_loss(churned, logits)
        if loss < least:
            number = round(float(np.mean([iterations for _, iterations in parts])))
            least, best = loss, (replace(growth, iterations=number), logits)
    assert best is not None
    return best


def _ladder(rows: int, training: TrainingConfig) -> list[int]:
    if training.epochs is not None:
        return [training.epochs]
    assert training.batch_size is not None
    first = max(1, round(TABLE_STEPS * training.batch_size / rows))
    return [min(first, 64) * 2**number for number in range(DOUBLINGS)]


def _folds(churned: NDArray[np.float32], customers: NDArray[Any], seed: int) -> Iterator[Fold]:
    """Positions to learn from and to judge; each customer's rows in one fold, the classes in equal shares."""
    every = len(churned) <= FOLDS_UP_TO
    count = FOLDS if FEW < len(churned) <= FOLDS_UP_TO else 5
    draw = np.random.default_rng(seed)
    of_row, known = pd.factorize(customers, sort=True)
    # where a customer has several rows, whether one of them churned
    ever = np.zeros(len(known), dtype=np.int64)
    np.maximum.at(ever, of_row, churned.astype(np.int64))
    fold = np.empty(len(known), dtype=np.int64)
    for label in (0, 1):
        members = draw.permutation(np.flatnonzero(ever == label))
        fold[members] = np.arange(len(members)) % count
    for number in range(count if every else 1):
        taken = fold[of_row] == number
        yield np.flatnonzero(~taken), np.flatnonzero(taken)


def _line(rows: Rows, fold: Fold, penalty: float, cardinalities: tuple[int, ...]) -> NDArray[np.float64]:
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
