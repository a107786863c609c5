"""Training of the members: log-loss of each, AdamW, cosine learning-rate schedule to zero."""

from collections.abc import Mapping, Sequence
from math import cos, pi
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from tabm import LinearBatchEnsemble, LinearEnsemble
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from core.errors import TrainingError
from training.learn.checkpoint import Contract
from training.learn.datamodule import Batch, Batches, Rows, derived_seed
from training.learn.metrics import evaluate
from training.learn.resolved import ResolvedTraining

TRAIN_LOSS, VALIDATION_LOSS = "train_log_loss", "validation_log_loss"


class ChurnModule(pl.LightningModule):
    """All members of a model in one module, trained on the same batches and independent of each other.

    A member is any network of (numeric, categorical) -> logit [B]; in training it may return [B, k], a
    column for each of k sub-models. The losses are summed and each member's gradient is clipped separately,
    so a member gets the same weights as alone on these batches. One module means one checkpoint, one resume
    and one DDP group for the model that is served, and a third of the steps' overhead. Members that differ
    by initial weights and dropout are on average as good as members that also differ by the order of rows
    (CDNOW, test log-loss: .31919 and .31917, another seed .31945 and .31955).

    `contract` is saved in each checkpoint; see training/learn/checkpoint.py.
    """

    def __init__(
        self,
        members: nn.Module | Sequence[nn.Module],
        config: ResolvedTraining,
        contract: Contract | None = None,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList([members] if isinstance(members, nn.Module) else members)
        self.config = config
        self.contract = contract
        self.train_loss, self.validation_loss = Mean(), Mean()
        self.scores: NDArray[np.float64] | None = None
        """Scores of the last `test` or `predict`, [B] in row order; every process has all of them."""
        self._judged: list[Tensor] = []
        self._random_state: Tensor | None = None

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        """The averaged logit, float64 [B], as the exported program computes it."""
        deep = torch.stack([member(numeric, categorical).double() for member in self.members]).mean(dim=0)
        return deep if self.contract is None else self.contract.program.mix(numeric, categorical, deep)

    # learning

    def on_fit_start(self) -> None:
        self._parts = [list(member.parameters()) for member in self.members]
        self._place()

    def on_train_start(self) -> None:
        if self._random_state is not None:  # resumed in the middle of an epoch
            torch.set_rng_state(self._random_state)
            self._random_state = None

    def on_train_epoch_start(self) -> None:
        # Random numbers of an epoch do not depend on earlier ones, so a resumed fit gives the same weights.
        torch.manual_seed(
            derived_seed(self.config.seed, self.trainer.current_epoch, self.trainer.global_rank)
        )
        self.train_loss = Mean()

    def training_step(self, batch: Batch, _index: int) -> Tensor:
        numeric, categorical, churned, rows = batch
        total = torch.zeros((), device=churned.device)
        for member in self.members:
            logit = member(numeric, categorical).float()
            models = 1 if logit.dim() == 1 else logit.shape[1]
            label = churned if logit.dim() == 1 else churned[:, None].expand_as(logit)
            total = total + binary_cross_entropy_with_logits(logit, label, reduction="sum") / models
        self.train_loss.add(total.detach() / len(self.members), len(churned))
        # DDP averages over processes, but their shares differ; the factor makes it the mean over all rows
        return total * (self.trainer.world_size / rows)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if not gradient_clip_val:
            return
        for part in self._parts:
            if gradient_clip_algorithm == "value":
                nn.utils.clip_grad_value_(part, gradient_clip_val)
            else:
                nn.utils.clip_grad_norm_(part, gradient_clip_val)

    def configure_optimizers(self) -> Any:
        decayed = decayed_weights(self.members)
        chosen = {id(parameter) for parameter in decayed}
        free = [parameter for parameter in self.parameters() if id(parameter) not in chosen]
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": self.config.weight_decay},
            {"params": free, "weight_decay": 0.0},
        ]
        # with a gradient scaler, a fused step would unscale after the clipping
        fused = self.trainer.precision != "16-mixed"
        optimizer = torch.optim.AdamW(groups, lr=self.config.learning_rate, fused=fused)
        steps: list[float] = []

        def cosine(step: int) -> float:
            if not step:
                # Called before a checkpoint is read. Counting the steps here would create the batches too
                # early, and Lightning would not restore their position.
                return 1.0
            if not steps:
                steps.append(self.trainer.estimated_stepping_batches)
            return (1 + cos(pi * min(step / steps[0], 1))) / 2

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # evaluation

    def on_validation_start(self) -> None:
        self._place()

    on_test_start = on_predict_start = on_validation_start

    def _place(self) -> None:
        """Moves the parts of the program that are not trained to the device; the module does not own them."""
        if self.contract is not None:
            self.contract.program.to(self.device)

    def validation_step(self, batch: Batch, _index: int) -> None:
        numeric, categorical, churned, _ = batch
        loss = binary_cross_entropy_with_logits(self(numeric, categorical), churned.double(), reduction="sum")
        self.validation_loss.add(loss, len(churned))

    def test_step(self, batch: Batch, _index: int) -> None:
        self._judged.append(torch.sigmoid(self(batch[0], batch[1])))

    predict_step = test_step

    # Logged once an epoch: `self.log` in every step costs as much as the step.
    def on_train_epoch_end(self) -> None:
        self.log(TRAIN_LOSS, self._over_processes(self.train_loss), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        self.log(VALIDATION_LOSS, self._over_processes(self.validation_loss), sync_dist=True, prog_bar=True)
        self.validation_loss = Mean()

    def on_test_epoch_end(self) -> None:
        scores = self._collect(self.trainer.test_dataloaders)
        churned = self._judged_rows()[2].numpy().astype(np.int64)
        found = evaluate(churned, scores, self.config.threshold)
        self.log_dict({f"test_{name}": value for name, value in found.items()}, sync_dist=True)

    def on_predict_epoch_end(self) -> None:
        self._collect(self.trainer.predict_dataloaders)

    def _over_processes(self, mean: "Mean") -> float:
        """The mean over the rows of all processes."""
        return Mean(*self._summed(mean.sums())).value

    def _collect(self, batches: Any) -> NDArray[np.float64]:
        """The scores of all processes, [B] in row order. Raises TrainingError if a row is not scored once."""
        assert isinstance(batches, Batches)
        scores_here, positions = torch.cat(self._judged), batches.positions().to(self.device)
        self._judged.clear()
        scored = torch.zeros(2, len(self._judged_rows()[0]), dtype=torch.float64, device=self.device)
        scored[0, positions], scored[1, positions] = scores_here, 1.0
        scores, times = self._summed(scored)
        if not bool((times == 1).all()):
            raise TrainingError("processes scored a row twice or not at all; report this")
        self.scores = scores.cpu().numpy()
        return self.scores

    def _judged_rows(self) -> Rows:
        rows: Rows = self.trainer.datamodule.judged  # type: ignore[attr-defined]  # Lightning sets it
        return rows

    def _summed(self, values: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return values
        summed: Tensor = self.trainer.strategy.reduce(values.to(self.device), reduce_op="sum")
        return summed

    # checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["random_state"] = torch.get_rng_state()
        if self.contract is not None:
            checkpoint["churn"] = self.contract.content()

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        self._random_state = checkpoint.get("random_state")
        if self.contract is not None and "churn" in checkpoint:
            self.contract.refuse_another(checkpoint["churn"])

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # the file holds all other arguments
        cls, checkpoint_path: str | Path, map_location: Any = None, **_kwargs: Any
    ) -> Self:
        """The module as saved. Raises TrainingError if `python -m training fit` did not write the file."""
        contract = Contract.read(Path(checkpoint_path))
        return cls(list(contract.program.members), contract.training, contract).to(map_location)


DECAYED = (nn.Linear, LinearBatchEnsemble, LinearEnsemble)
"""Layers that multiply by a matrix; TabM's are shared weights [out, in], and [k, in, out] of its heads."""


def decayed_weights(members: nn.Module) -> list[Tensor]:
    """The weight matrices, which weight decay shrinks.

    Everything else is not decayed: biases, embeddings, norms, and the scalings `r` and `s` by which TabM's
    sub-models differ (Gorishniy and others, 2025). These start at plus or minus 1: a decay to 0 would switch
    a sub-model off instead of regularising it.
    """
    return [layer.weight for layer in members.modules() if isinstance(layer, DECAYED)]


class Mean:
    """The mean loss of an epoch's rows, summed on the device without synchronisation."""

    def __init__(self, total: Tensor | float = 0.0, rows: Tensor | int = 0) -> None:
        self._sum, self._rows = total, rows

    def add(self, total: Tensor, rows: int) -> None:
        """Adds the sum of the losses of `rows` rows."""
        self._sum = self._sum + total.double()
        self._rows = self._rows + rows

    def sums(self) -> Tensor:
        """Sum of the losses and number of rows, float64 [2]."""
        return torch.tensor([float(self._sum), float(self._rows)], dtype=torch.float64)

    @property
    def value(self) -> float:
        """The mean; NaN without rows."""
        return float(self._sum) / float(self._rows) if self._rows else float("nan")
