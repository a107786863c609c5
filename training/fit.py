"""Rows in, a program out. Tuning, calibration and the final fit all call this one function."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from features.spec import FeaturesConfig
from model.calibration import Calibration
from model.config import ModelConfig
from model.network import Network
from model.preprocessing import Preprocessing
from model.program import Program, score
from training.config import TrainingConfig
from training.datamodule import Batch, ChurnData
from training.inputs import Inputs
from training.module import ChurnModule
from training.quiet import quiet


@dataclass(frozen=True)
class Fitted:
    program: Program
    inputs: Inputs

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
) -> Fitted:
    """One member for each of `model.seeds`, all on the same preprocessing, learned from `train` alone.

    With `validation`, its log-loss is measured after each epoch for `callbacks` to read; it teaches nothing.
    The same rows, config and seeds give the same weights, bit for bit; so does another machine of the same
    kind, since the number of threads comes from the config and not from the cores (one is nearly as fast).
    """
    inputs = Inputs.learn(train, spec)
    preprocessing = Preprocessing.fit(inputs.encode(train)[0], model.log1p)
    train_batch = _tensors(train, inputs, preprocessing)
    validation_batch = None if validation is None else _tensors(validation, inputs, preprocessing)
    members = []
    for number, seed in enumerate(model.seeds, start=1):
        with quiet(), _threads(training.threads or 1), torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed + seed)
            network = Network(preprocessing.outputs, inputs.cardinalities, model)
            if network.wide is not None:
                network.wide.solve(*train_batch)
            data = ChurnData(train_batch, validation_batch, training.batch_size, training.seed + seed)
            told = Told(progress, f"member {number} of {len(model.seeds)}")
            _trainer(training, [told, *callbacks]).fit(ChurnModule(network, training), datamodule=data)
        members.append(network)
    return Fitted(Program(preprocessing, members, Calibration()).eval(), inputs)


class Told(pl.Callback):
    """Tells `progress` the training log-loss after each epoch."""

    def __init__(self, progress: Callable[[str], None], who: str) -> None:
        self._progress, self._who = progress, who

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, ChurnModule)
        epochs = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
        self._progress(f"{self._who}, {epochs}: log-loss {pl_module.train_loss.value:.4f}")


def _trainer(training: TrainingConfig, callbacks: list[pl.Callback]) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=training.epochs,
        gradient_clip_val=training.gradient_clip,
        deterministic=True,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _tensors(rows: pd.DataFrame, inputs: Inputs, preprocessing: Preprocessing) -> Batch:
    numeric, codes = inputs.encode(rows)
    churned = torch.from_numpy(rows["churned"].to_numpy(dtype=np.float32))
    return preprocessing(torch.from_numpy(numeric)), torch.from_numpy(codes), churned
