"""Rows in, a program out. Tuning, calibration, the final fit and `python -m training` all come this way."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from data.errors import TrainingError
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
from training.learn.forward_stacking import Judged, choose_forward, short_log
from training.learn.inputs import Inputs
from training.learn.module import ChurnModule
from training.learn.recipe import settle
from training.learn.settled import Settled
from training.learn.split import Shape
from training.learn.stacking import Chosen, cross_fit, path_logits
from training.quiet import quiet


@dataclass(frozen=True)
class Fitted:
    program: Program
    inputs: Inputs
    settled: Settled
    chosen: Chosen | None = None
    """What the rows have chosen; None where everything was given."""

    def score(self, rows: pd.DataFrame) -> NDArray[np.float64]:
        """Churn probability of each row."""
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
    chosen: Chosen | None = None,
) -> Fitted:
    """One member for each of `model.seeds`, all on the same preprocessing, learned from `train` alone.

    `shape` is that of the source, which its manifest says. With `validation`, its log-loss is measured after
    each epoch for `callbacks` to read; it teaches nothing.
    The same rows, config and seeds give the same weights, bit for bit; so does another machine of the same
    kind, since the number of threads comes from the config and not from the cores (one is nearly as fast).
    `chosen` is the choice of an earlier fit (`Fitted.chosen`), which is taken as it is: a fit without the
    search is many times cheaper.
    """
    with prepared(training):
        task = assemble(train, validation, spec, model, training, shape, chosen)
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            callbacks=[Told(progress), *callbacks],
            enable_checkpointing=False,
            enable_progress_bar=False,
            **trainer_settings(task.contract.training),
        )
        trainer.fit(task.module, datamodule=task.data)
    return Fitted(task.contract.program.eval(), task.contract.inputs, task.settled, task.chosen)


@dataclass(frozen=True)
class Task:
    """All that a trainer is given."""

    contract: Contract
    module: ChurnModule
    data: ChurnData
    settled: Settled
    chosen: Chosen | None = None


def assemble(
    train: pd.DataFrame,
    validation: pd.DataFrame | None,
    spec: FeaturesConfig,
    model: ModelConfig,
    training: TrainingConfig,
    shape: Shape,
    chosen: Chosen | None = None,
) -> Task:
    """Learn the preprocessing, draw the members, lay out the batches. Call it inside of `prepared`.

    The task's contract holds the configs without gaps: what the recipe and the cross-fit have chosen.
    """
    model, training = settle(model, training, shape, len(train))
    if chosen is None and training.epochs is None and not model.wide and shape == "labelled":
        raise TrainingError(
            "training.epochs: give a number; for a table it is found by itself only where model.wide is true"
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
        chosen = cross_fit(train_rows, model, training, bins, inputs.cardinalities, customers)
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
        Settled(model, training, {} if chosen is None else _of_the_rows(chosen)),
        chosen,
    )


def _of_the_rows(chosen: Chosen) -> dict[str, float]:
    """What the cross-fit has chosen beside the epochs, by name."""
    weights = {f"weight_{name}": value for name, value in asdict(chosen.combination).items()}
    found = {"penalty": chosen.penalty, **weights}
    for share, growth in chosen.forest:
        found |= {f"trees_{growth.name}": float(growth.iterations), f"share_{growth.name}": share}
    return found


def trainer_settings(training: TrainingConfig) -> dict[str, Any]:
    """How a model learns, wherever it is trained; the rest (devices, files, bars) is the caller's."""
    return {
        "max_epochs": training.epochs,
        "gradient_clip_val": training.gradient_clip,
        "deterministic": True,
        "logger": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }


def judge_forward(
    train: pd.DataFrame,
    spec: FeaturesConfig,
    model: ModelConfig,
    training: TrainingConfig,
    callbacks: Sequence[pl.Callback] = (),
    origin_judged: Callable[[float], None] = lambda log_loss: None,
) -> Judged:
    """How a log's configuration does forward in time (training/learn/forward_stacking.py), without the final
    fit.

    Raises TrainingError where no snapshot lies a horizon after another one, or the network diverges.
    """
    model, training = settle(model, training, "transactions", len(train))
    inputs = Inputs.learn(train, spec)
    with prepared(training):
        preprocessing = learn_preprocessing(train, inputs, spec, model, "transactions")
        bins = learn_bins(tensors(train, inputs, preprocessing)[0], model)
        judged = choose_forward(
            train, inputs, spec, model, training, preprocessing, bins, tuple(callbacks), origin_judged
        )
    if judged is None:
        raise TrainingError(
            "no training snapshot lies features.horizon_days after another; bring a longer log"
        )
    return judged


@contextmanager
def prepared(training: TrainingConfig) -> Iterator[None]:
    """Silence, the configured threads, and random numbers that leave the process's own as they were."""
    before = torch.get_num_threads()
    torch.set_num_threads(training.threads or 1)
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)


class Told(pl.Callback):
    """Tells `progress` the training log-loss after each epoch."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self._progress = progress

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, ChurnModule)
        if trainer.is_global_zero:
            epoch = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
            self._progress(f"{epoch}: log-loss {pl_module.train_loss.value:.4f}")
