"""Fits a program to rows. Used by tuning, calibration, the final fit and `python -m training`."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from core.errors import TrainingError
from model.calibration import Calibration
from model.network import Network
from model.program import Program, score
from model.wide import Wide
from training.learn.boosting import grow_forest
from training.learn.checkpoint import Contract
from training.learn.datamodule import ChurnData
from training.learn.encoded import EncodedRows, tensors
from training.learn.forward_stacking import ForwardResult, choose_forward, short_log
from training.learn.inputs import Inputs
from training.learn.module import ChurnModule
from training.learn.paths import StackingChoice, path_logits
from training.learn.recipe import resolve
from training.learn.resolved import FitRecord, FitSettings, ResolvedSettings
from training.learn.stacking import choose_out_of_fold
from training.learn.trainer import ProgressCallback, prepared, trainer_settings


@dataclass(frozen=True)
class Fitted:
    """A fitted program with its inputs and the settings of the fit."""

    program: Program
    inputs: Inputs
    settings: ResolvedSettings
    chosen: StackingChoice | None = None
    """What was chosen by the rows; None if all of it was given."""

    @property
    def record(self) -> FitRecord:
        """The settings that were used, and what the rows have chosen."""
        found = {} if self.chosen is None else _of_the_rows(self.chosen)
        return FitRecord(self.settings.model, self.settings.training, found)

    def score(self, rows: pd.DataFrame) -> NDArray[np.float64]:
        """Churn probability of each row, float64 [B]."""
        return score(self.program, *self.inputs.encode(rows))


def fit(
    train: pd.DataFrame,
    validation: pd.DataFrame | None,
    settings: FitSettings,
    progress: Callable[[str], None] = lambda message: None,
    callbacks: Sequence[pl.Callback] = (),
    *,
    chosen: StackingChoice | None = None,
) -> Fitted:
    """Fits one member for each of `model.seeds`, all on the same preprocessing, to `train` alone.

    With `validation`, its log-loss is measured after each epoch for `callbacks` to read; nothing is fitted
    to it. The same rows, settings and seeds give the same weights, bit for bit, also on another machine of
    the same kind: the number of threads comes from the config, not from the cores (one is nearly as fast).
    `chosen` is the choice of an earlier fit (`Fitted.chosen`) and replaces the search, which takes most of
    the time. Raises TrainingError as `assemble` does.
    """
    with prepared(settings.training):
        task = assemble(train, validation, settings, chosen)
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            callbacks=[ProgressCallback(progress), *callbacks],
            enable_checkpointing=False,
            enable_progress_bar=False,
            **trainer_settings(task.settings.training),
        )
        trainer.fit(task.module, datamodule=task.data)
    return Fitted(task.contract.program.eval(), task.contract.inputs, task.settings, task.chosen)


@dataclass(frozen=True)
class Task:
    """The arguments of a trainer, with the settings that are used and what the rows have chosen."""

    contract: Contract
    module: ChurnModule
    data: ChurnData
    settings: ResolvedSettings
    chosen: StackingChoice | None = None


def assemble(
    train: pd.DataFrame,
    validation: pd.DataFrame | None,
    settings: FitSettings,
    chosen: StackingChoice | None = None,
) -> Task:
    """Fits the preprocessing, initialises the members, prepares the batches. Call it inside of `prepared`.

    The task holds the resolved settings: the values of the recipe and of the out-of-fold choice.
    Raises TrainingError for a table without `training.epochs` and without a wide path.
    """
    encoded = EncodedRows.of(train, _resolved(settings, len(train), chosen))
    chosen = _choose(encoded) if chosen is None else chosen
    used = _used(encoded, chosen)
    members = [_member(encoded, used.training.seed + seed) for seed in used.model.seeds]
    program = _program(encoded, members, chosen)
    contract = Contract(program, encoded.inputs, used.spec, used.model, used.training)
    judged = None if validation is None else tensors(validation, encoded.inputs, encoded.preprocessing)
    data = ChurnData(encoded.tensors, judged, used.training.batch_size, used.training.seed)
    return Task(contract, ChurnModule(members, used.training, contract), data, used, chosen)


def _resolved(settings: FitSettings, rows: int, chosen: StackingChoice | None) -> ResolvedSettings:
    resolved = resolve(settings, rows)
    epochs_are_open = chosen is None and resolved.training.epochs is None
    if epochs_are_open and not resolved.model.wide and resolved.shape == "labelled":
        raise TrainingError(
            "training.epochs: give a number; for a table it is chosen by the fit only if model.wide is true"
        )
    return resolved


def _choose(encoded: EncodedRows) -> StackingChoice | None:
    """Weights of the paths and epochs, by the rows; None if there is one path and its epochs are given."""
    settings, training = encoded.settings, encoded.settings.training
    if settings.shape == "transactions" and (settings.model.wide or training.epochs is None):
        judged = choose_forward(encoded)
        return short_log(len(encoded.frame), training) if judged is None else judged.chosen
    return choose_out_of_fold(encoded) if settings.model.wide else None


def _used(encoded: EncodedRows, chosen: StackingChoice | None) -> ResolvedSettings:
    """The settings with the last two values that depend on the rows: epochs and purchase process."""
    settings, process = encoded.settings, encoded.preprocessing.process
    model = settings.model.model_copy(update={"purchase_process": process is not None})
    training = settings.training
    if chosen is not None:
        training = training.model_copy(update={"epochs": chosen.epochs})
    return replace(settings, model=model, training=training)


def _member(encoded: EncodedRows, seed: int) -> Network:
    torch.manual_seed(seed)
    outputs, sizes = encoded.preprocessing.outputs, encoded.inputs.cardinalities
    return Network(outputs, sizes, encoded.settings.model, encoded.bins)


def _program(encoded: EncodedRows, members: Sequence[Network], chosen: StackingChoice | None) -> Program:
    """The program with its wide path solved and its paths combined; the members are not trained yet."""
    settings, sizes, rows = encoded.settings, encoded.inputs.cardinalities, encoded.tensors
    wide = Wide(encoded.preprocessing.outputs, sizes) if settings.model.wide else None
    program = Program(encoded.preprocessing, members, Calibration(), wide, encoded.bins)
    if wide is not None and chosen is not None:
        wide.solve(*rows, penalty=chosen.penalty)
        line = path_logits(wide, rows, torch.arange(len(encoded.frame)))
        grow_forest(wide.trees, rows, chosen.forest, settings.training.seed, sizes, line)
        program.combine(chosen.combination)
    return program


def _of_the_rows(chosen: StackingChoice) -> dict[str, float]:
    """What was chosen out of fold, by name, without the epochs."""
    weights = {f"weight_{name}": value for name, value in asdict(chosen.combination).items()}
    found = {"penalty": chosen.penalty, **weights}
    for share, growth in chosen.forest:
        found |= {f"trees_{growth.name}": float(growth.iterations), f"share_{growth.name}": share}
    return found


def evaluate_forward(
    train: pd.DataFrame,
    settings: FitSettings,
    callbacks: Sequence[pl.Callback] = (),
    origin_judged: Callable[[float], None] = lambda log_loss: None,
) -> ForwardResult:
    """Evaluates a log's settings forward in time (training/learn/forward_stacking.py), without the final fit.

    Raises TrainingError if no snapshot is a horizon after another one, or the network diverges.
    """
    with prepared(settings.training):
        encoded = EncodedRows.of(train, resolve(settings, len(train)))
        judged = choose_forward(encoded, tuple(callbacks), origin_judged)
    if judged is None:
        raise TrainingError("no training snapshot is features.horizon_days after another; bring a longer log")
    return judged
