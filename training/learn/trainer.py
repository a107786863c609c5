"""The environment of every fit: trainer settings, threads, random state and progress."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch

from training.config import TrainingConfig
from training.learn.module import ChurnModule
from training.quiet import quiet


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
