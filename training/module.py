"""How one member learns: log-loss, AdamW, a cosine to zero."""

from math import cos, pi
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from training.config import TrainingConfig
from training.datamodule import Batch

VALIDATION_LOSS = "validation_log_loss"


class ChurnModule(pl.LightningModule):
    """Any network of (numeric, categorical) -> logit, trained as `config` says."""

    def __init__(self, network: nn.Module, config: TrainingConfig) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.train_loss, self.validation_loss = Mean(), Mean()

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        logit: Tensor = self.network(numeric, categorical)
        return logit

    def training_step(self, batch: Batch, _index: int) -> Tensor:
        return self._step(batch, self.train_loss)

    def validation_step(self, batch: Batch, _index: int) -> Tensor:
        return self._step(batch, self.validation_loss)

    def _step(self, batch: Batch, mean: "Mean") -> Tensor:
        numeric, categorical, churned = batch
        loss = binary_cross_entropy_with_logits(self(numeric, categorical), churned)
        mean.add(loss.detach(), len(churned))
        return loss

    # Logged once an epoch: `self.log` in every step costs as much as the step.
    def on_train_epoch_end(self) -> None:
        self.log("train_log_loss", self.train_loss.take())

    def on_validation_epoch_end(self) -> None:
        self.log(VALIDATION_LOSS, self.validation_loss.take())

    def configure_optimizers(self) -> Any:
        decayed = [layer.weight for layer in self.modules() if isinstance(layer, nn.Linear)]
        chosen = {id(parameter) for parameter in decayed}
        # biases, embeddings and norms stay where the data puts them
        free = [parameter for parameter in self.parameters() if id(parameter) not in chosen]
        groups = [
            {"params": decayed, "weight_decay": self.config.weight_decay},
            {"params": free, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.config.learning_rate, fused=True)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: (1 + cos(pi * min(step / steps, 1))) / 2
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Mean:
    """The mean loss of an epoch's rows, summed on the device without waiting for it."""

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0
        self._rows = 0

    def add(self, loss: Tensor, rows: int) -> None:
        self._sum = self._sum + loss.double() * rows
        self._rows += rows

    @property
    def value(self) -> float:
        return float(self._sum) / self._rows if self._rows else float("nan")

    def take(self) -> float:
        """The mean, and start anew."""
        value, self._sum, self._rows = self.value, 0.0, 0
        return value
