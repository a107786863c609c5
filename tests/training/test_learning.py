"""How members learn: batches shared among processes, members that do not mix, a fit that can be resumed."""

from itertools import chain
from pathlib import Path

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from churn.settings import Settings
from model.config import ModelConfig
from model.network import Network
from support.fits import fit_settings
from training.learn.datamodule import Batches, ChurnData, Rows, derived_seed
from training.learn.fit import assemble
from training.learn.module import ChurnModule
from training.learn.resolved import ResolvedTraining
from training.learn.trainer import prepared, trainer_settings


def table(rows: int) -> Rows:
    generator = torch.Generator().manual_seed(0)
    numeric = torch.randn(rows, 3, generator=generator)
    numeric[:, 0] = torch.arange(rows)  # the position of the row
    return numeric, torch.zeros(rows, 0, dtype=torch.int64), (numeric[:, 1] > 0).float()


def places(batches: Batches) -> list[list[int]]:
    return [numeric[:, 0].int().tolist() for numeric, _, _, _ in batches]


@pytest.mark.parametrize("rows", [1, 7, 10, 21, 22])
@pytest.mark.parametrize("seed", [None, 3])
def test_processes_share_each_batch_without_gaps_or_doubles(rows: int, seed: int | None) -> None:
    whole = places(Batches(table(rows), 10, seed))
    parts = [Batches(table(rows), 10, seed, rank, 3) for rank in range(3)]

    shares = [places(part) for part in parts]
    assert [list(chain(*together)) for together in zip(*shares, strict=True)] == whole
    assert sorted(chain(*whole)) == list(range(rows))
    assert [list(chain(*share)) for share in shares] == [part.positions().tolist() for part in parts]
    assert {len(part) for part in parts} == {len(whole)}


def test_an_order_is_a_function_of_seed_and_epoch() -> None:
    one, two, other = (Batches(table(50), 10, seed) for seed in (1, 1, 2))
    first = places(one)
    assert first == places(two) != places(other)
    one.sampler.set_epoch(1)
    assert places(one) != first
    two.sampler.set_epoch(1)
    assert places(two) == places(one)
    assert derived_seed(1, 2) != derived_seed(2, 1)


class Noted(nn.Module):
    """A logistic regression with a given start."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)
        nn.init.constant_(self.linear.weight, start)
        nn.init.zeros_(self.linear.bias)

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        logit: Tensor = self.linear(numeric / 10).squeeze(1)
        return logit


def learned(members: list[nn.Module], training: ResolvedTraining) -> list[Tensor]:
    with prepared(training):
        module = ChurnModule(members, training)
        trainer = pl.Trainer(
            accelerator="cpu",
            enable_checkpointing=False,
            enable_progress_bar=False,
            **trainer_settings(training),
        )
        trainer.fit(module, datamodule=ChurnData(table(200), None, 32, 0))
    return [member.linear.weight.detach().clone() for member in module.members]  # type: ignore[union-attr, operator]


def test_a_member_learns_what_it_would_learn_alone() -> None:
    training = ResolvedTraining(
        epochs=3, batch_size=32, learning_rate=0.05, weight_decay=0.01, gradient_clip=0.05, baselines=()
    )
    together = learned([Noted(0.0), Noted(5.0)], training)
    alone = [learned([Noted(0.0)], training)[0], learned([Noted(5.0)], training)[0]]

    for one, other in zip(together, alone, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


class SavedAt(pl.Callback):
    def __init__(self, step: int, file: Path) -> None:
        self._step, self._file = step, file

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == self._step:
            trainer.save_checkpoint(self._file)


def test_a_fit_resumed_in_the_middle_of_an_epoch_ends_the_same(
    small: Settings, rows: pd.DataFrame, tmp_path: Path
) -> None:
    few, training = rows.iloc[:3000], small.training.model_copy(update={"epochs": 3})
    model, file = small.model.model_copy(update={"seeds": (0,)}), tmp_path / "half.ckpt"

    def weights(callbacks: list[pl.Callback], ckpt_path: Path | None = None) -> dict[str, Tensor]:
        with prepared(training):
            task = assemble(few, None, fit_settings(small, model=model, training=training))
            trainer = pl.Trainer(
                accelerator="cpu",
                callbacks=callbacks,
                enable_checkpointing=False,
                enable_progress_bar=False,
                **trainer_settings(task.settings.training),
            )
            trainer.fit(task.module, datamodule=task.data, ckpt_path=ckpt_path, weights_only=True)
        return dict(task.module.state_dict())

    whole = weights([SavedAt(17, file)])  # 12 steps an epoch: the 5th of the second
    resumed = weights([], file)

    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("architecture", ["mlp", "tabm"])
def test_weight_decay_shrinks_every_matrix_and_nothing_else(architecture: str) -> None:
    """One step on rows whose gradient is zero moves only what decays."""
    config = ModelConfig(
        architecture=architecture, hidden=(8, 8), dropout=0.0, submodels=3, numeric_embedding="none"
    )
    torch.manual_seed(0)
    member = Network(3, (4,), config)
    training = ResolvedTraining(epochs=1, batch_size=8, learning_rate=0.1, weight_decay=0.5, baselines=())
    module = ChurnModule(member, training)
    module.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    optimizer = module.configure_optimizers()["optimizer"]
    before = {name: value.detach().clone() for name, value in member.named_parameters()}
    for parameter in member.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()

    after = dict(member.named_parameters())
    shrunken = {name for name in before if not torch.equal(before[name], after[name])}
    matrices = {name for name in before if name.startswith("deep.") and name.endswith(".weight")}
    assert shrunken == matrices
    assert len(matrices) == 3
    for name in matrices:
        assert torch.allclose(after[name], before[name] * (1 - 0.1 * 0.5))
