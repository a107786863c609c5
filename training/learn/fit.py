"""Fits a program to rows. Used by tuning, calibration, the final fit and `python -m training`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from core.errors import TrainingError
from features.spec import FeaturesConfig
from model.calibration import Calibration
from model.config import ModelConfig
from model.embeddings import learn_bins
from model.network import Network
from model.program import Program, score
from model.wide import Wide
from training.config import TrainingConfig
from training.learn.boosting import grow_forest
from training.learn.checkpoint import Contract
from training.learn.datamodule import ChurnData
from training.learn.encoded import learn_preprocessing, tensors
from training.learn.forward_stacking import ForwardResult, choose_forward, short_log
from training.learn.inputs import Inputs
from training.learn.module import ChurnModule
from training.learn.recipe import resolve_settings
from training.learn.settled import ResolvedSettings
from training.learn.split import Shape
from training.learn.stacking import StackingChoice, choose_out_of_fold, path_logits
from training.quiet import quiet


@dataclass(frozen=True)
class Fitted:
    """A fitted program with its inputs and the settings of the fit."""

    program: Program
    inputs: Inputs
    resolved: ResolvedSettings
    chosen: StackingChoice | None = None
    """What was chosen by the rows; None if all of it was given."""

    def score(self, rows: pd.DataFrame) -> NDArray[np.float64]:
        """Churn probability of each row, float64 [B]."""
        return score(self.program, *self.inputs.encode(rows))


def fit(
    train: pd.DataFrame,
    validation: pd.DataFrame | None,
    spec: FeaturesConfig,
    model: ModelConfig,
    training: TrainingConfig,
    progress: Callable[[str], None] = lambda message: None,
    callbacks: Sequence[pl.Callback] = (),
    *,
    shape: Shape,
    chosen: StackingChoice | None = None,
) -> Fitted:
    """Fits one member for each of `model.seeds`, all on the same preprocessing, to `train` alone.

    `shape` is the shape of the source, from its manifest. With `validation`, its log-loss is measured after
    each epoch for `callbacks` to read; nothing is fitted to it.
    The same rows, config and seeds give the same weights, bit for bit, also on another machine of the same
    kind: the number of threads comes from the config, not from the cores (one is nearly as fast).
    `chosen` is the choice of an earlier fit (`Fitted.chosen`) and replaces the search, which takes most of
    the time. Raises TrainingError as `assemble` does.
    """
    with prepared(training):
        task = assemble(train, validation, spec, model, training, shape, chosen)
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            callbacks=[ProgressCallback(progress), *callbacks],
            enable_checkpointing=False,
            enable_progress_bar=False,
            **trainer_settings(task.contract.training),
        )
        trainer.fit(task.module, datamodule=task.data)
    return Fitted(task.contract.program.eval(), task.contract.inputs, task.resolved, task.chosen)


@dataclass(frozen=True)
class Task:
    """The arguments of a trainer, with the resolved settings."""

    contract: Contract
    module: ChurnModule
    data: ChurnData
    resolved: ResolvedSettings
    chosen: StackingChoice | None = None


def assemble(
    train: pd.DataFrame,
    validation: pd.DataFrame | None,
    spec: FeaturesConfig,
    model: ModelConfig,
    training: TrainingConfig,
    shape: Shape,
    chosen: StackingChoice | None = None,
) -> Task:
    """Fits the preprocessing, initialises the members, prepares the batches. Call it inside of `prepared`.

    The task's contract holds the resolved configs: the values of the recipe and of the out-of-fold choice.
    Raises TrainingError for a table without `training.epochs` and without a wide path.
    """
    model, training = resolve_settings(model, training, shape, len(train))
    if chosen is None and training.epochs is None and not model.wide and shape == "labelled":
        raise TrainingError(
            "training.epochs: give a number; for a table it is chosen by the fit only if model.wide is true"
        )
    inputs = Inputs.learn(train, spec)
    preprocessing = learn_preprocessing(train, inputs, spec, model, shape)
    model = model.model_copy(update={"purchase_process": preprocessing.process is not None})
    train_rows = tensors(train, inputs, preprocessing)
    validation_rows = None if validation is None else tensors(validation, inputs, preprocessing)
    size, bins = (preprocessing.outputs, inputs.cardinalities), learn_bins(train_rows[0], model)
    if chosen is None and shape == "transactions" and (model.wide or training.epochs is None):
        judged = choose_forward(train, inputs, spec, model, training, preprocessing, bins)
        chosen = short_log(len(train), training) if judged is None else judged.chosen
    elif chosen is None and model.wide:
        customers = train["user_id"].to_numpy()
        chosen = choose_out_of_fold(train_rows, model, training, bins, inputs.cardinalities, customers)
    if chosen is not None:
        training = training.model_copy(update={"epochs": chosen.epochs})
    assert training.epochs is not None
    assert training.batch_size is not None
    assert model.seeds is not None
    members = []
    for seed in model.seeds:
        torch.manual_seed(training.seed + seed)
        members.append(Network(*size, model, bins))
    wide = Wide(*size) if model.wide else None
    program = Program(preprocessing, members, Calibration(), wide, bins)
    if wide is not None and chosen is not None:
        wide.solve(*train_rows, penalty=chosen.penalty)
        line = path_logits(wide, train_rows, torch.arange(len(train)))
        grow_forest(wide.trees, train_rows, chosen.forest, training.seed, inputs.cardinalities, line)
        program.combine(chosen.combination)
    contract = Contract(program, inputs, spec, model, training)
    return Task(
        contract,
        ChurnModule(members, training, contract),
        ChurnData(train_rows, validation_rows, training.batch_size, training.seed),
        ResolvedSettings(model, training, {} if chosen is None else _of_the_rows(chosen)),
        chosen,
    )


def _of_the_rows(chosen: StackingChoice) -> dict[str, float]:
    """What was chosen out of fold, by name, without the epochs."""
    weights = {f"weight_{name}": value for name, value in asdict(chosen.combination).items()}
    found = {"penalty": chosen.penalty, **weights}
    for share, growth in chosen.forest:
        found |= {f"trees_{growth.name}": float(growth.iterations), f"share_{growth.name}": share}
    return found


def trainer_settings(training: TrainingConfig) -> dict[str, Any]:
    """Settings of every trainer; the caller adds the rest (devices, files, progress bars)."""
    return {
        "max_epochs": training.epochs,
        "gradient_clip_val": training.gradient_clip,
        "deterministic": True,
        "logger": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }


def evaluate_forward(
    train: pd.DataFrame,
    spec: FeaturesConfig,
    model: ModelConfig,
    training: TrainingConfig,
    callbacks: Sequence[pl.Callback] = (),
    origin_judged: Callable[[float], None] = lambda log_loss: None,
) -> ForwardResult:
    """Evaluates a log's configuration forward in time (training/learn/forward_stacking.py), without the final
    fit.

    Raises TrainingError if no snapshot is a horizon after another one, or the network diverges.
    """
    model, training = resolve_settings(model, training, "transactions", len(train))
    inputs = Inputs.learn(train, spec)
    with prepared(training):
        preprocessing = learn_preprocessing(train, inputs, spec, model, "transactions")
        bins = learn_bins(tensors(train, inputs, preprocessing)[0], model)
        judged = choose_forward(
            train, inputs, spec, model, training, preprocessing, bins, tuple(callbacks), origin_judged
        )
    if judged is None:
        raise TrainingError("no training snapshot is features.horizon_days after another; bring a longer log")
    return judged


@contextmanager
def prepared(training: TrainingConfig) -> Iterator[None]:
    """Silences libraries, sets the configured threads, and restores the global random state afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(training.threads or 1)
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)


class ProgressCallback(pl.Callback):
    """Reports the training log-loss to `progress` after each epoch."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self._progress = progress

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, ChurnModule)
        if trainer.is_global_zero:
            epoch = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
            self._progress(f"{epoch}: log-loss {pl_module.train_loss.value:.4f}")
