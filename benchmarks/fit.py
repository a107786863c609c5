"""What Lightning costs, and what millions of rows cost.

    python -m benchmarks.fit [--training-set FILE] [--pairs 3] [--rows 500000 1000000 2000000]

First: the fit of `churn train` beside a bare PyTorch loop, on the same tensors of CDNOW, in turns.
The bare loop is what one would write: member after member, its own shuffle, AdamW, clipping and cosine, no
validation, nothing logged but the mean loss. Wall and CPU seconds; the medians and their ratio count.
Second: synthetic tables, each fitted for two epochs in a process of its own, for memory and time an epoch.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from math import cos, pi
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from churn.settings import Settings, load_settings
from training.learn.datamodule import Rows
from training.learn.fit import Task, assemble, fit
from training.learn.metrics import evaluate
from training.learn.resolved import FitSettings
from training.learn.trainer import prepared, trainer_settings
from training.train import prepare

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ("training.epochs=4", "model.seeds=[0, 1, 2]")


def main() -> None:
    options = parse_arguments()
    if options.case:
        json.dump(synthetic(options.case), sys.stdout)
        return
    results: dict[str, Any] = {}
    if options.pairs:
        results["cdnow"] = paired(options.training_set, options.pairs)
        show("CDNOW, 3 members, 4 epochs", results["cdnow"]["rows"])
        Console().print({key: value for key, value in results["cdnow"].items() if key != "rows"})
    if options.rows:
        results["synthetic"] = [in_a_process_of_its_own(rows) for rows in options.rows]
        show("Synthetic rows, 22 inputs, 1 member", results["synthetic"])
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "fit.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--training-set", type=Path, help="default: made anew from CDNOW")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="*", default=[500_000, 1_000_000, 2_000_000])
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "benchmarks")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def paired(training_set: Path | None, pairs: int) -> dict[str, Any]:
    settings = load_settings(overrides=SETTINGS)
    data = pd.read_parquet(training_set) if training_set else cdnow()
    wanted = FitSettings("transactions", settings.features, settings.model, settings.training)
    rows, split = prepare(data, wanted)
    train, test = rows.iloc[split.train], rows.iloc[split.test]
    whole, fitted = timed(lambda: fit(train, None, wanted))
    found = evaluate(test["churned"], fitted.score(test))
    taken: dict[str, list[dict[str, float]]] = {"lightning": [], "bare": []}
    for _ in range(pairs):
        for name, run in (("lightning", by_lightning), ("bare", by_hand)):
            with prepared(settings.training):
                task = assemble(train, None, wanted)
                taken[name].append(timed(lambda run=run, task=task: run(task, settings))[0])  # type: ignore[misc]
    rows_of = [
        {
            "by": name,
            "rows": len(train),
            **{key: statistics.median(t[key] for t in times) for key in times[0]},
        }
        for name, times in taken.items()
    ]
    ratios = {
        key: statistics.median(
            ours[key] / bare[key] for ours, bare in zip(taken["lightning"], taken["bare"], strict=True)
        )
        for key in ("wall_s", "cpu_s")
    }
    return {
        "rows": rows_of,
        "ratio_of_pairs": ratios,
        "whole_fit": whole,
        "test": {key: found[key] for key in ("log_loss", "auroc")},
    }


def by_lightning(task: Task, settings: Settings) -> None:
    trainer = pl.Trainer(
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        **trainer_settings(task.settings.training),
    )
    trainer.fit(task.module, datamodule=task.data)


def by_hand(task: Task, settings: Settings) -> None:
    config = task.settings.training
    assert config.epochs is not None
    numeric, categorical, churned = rows = learned_from(task)
    steps = config.epochs * -(-len(churned) // config.batch_size)
    for seed, member in enumerate(task.module.members):
        optimizer = torch.optim.AdamW(
            groups(member, config.weight_decay), lr=config.learning_rate, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: (1 + cos(pi * min(step / steps, 1))) / 2
        )
        parameters, shuffle = list(member.parameters()), torch.Generator().manual_seed(seed)
        member.train()
        for _ in range(config.epochs):
            total = torch.zeros(())
            for index in torch.randperm(len(rows[0]), generator=shuffle).split(config.batch_size):
                logit = member(numeric[index], categorical[index])
                loss = binary_cross_entropy_with_logits(logit, churned[index])
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
                optimizer.step()
                schedule.step()
                total += loss.detach()


def learned_from(task: Task) -> Rows:
    batches: Any = task.data.train_dataloader()
    rows: Rows = batches.rows
    return rows


def groups(member: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    decayed = [layer.weight for layer in member.modules() if isinstance(layer, nn.Linear)]
    chosen = {id(parameter) for parameter in decayed}
    free = [parameter for parameter in member.parameters() if id(parameter) not in chosen]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def timed(act: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = act()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}, result


def cdnow() -> pd.DataFrame:
    from pipelines.context import Context
    from pipelines.engine import run_steps
    from pipelines.steps import STEPS

    wanted = ("ingest", "features", "online store", "training set")
    with tempfile.TemporaryDirectory(prefix="churn-bench-") as folder:
        settings = load_settings(overrides=[f"workspace={folder}"])
        context = Context(settings, datetime(2026, 1, 1, tzinfo=UTC), lambda message: None)
        run_steps([step for step in STEPS if step.name in wanted], context)
        return pd.read_parquet(settings.files.training_set)


def in_a_process_of_its_own(rows: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.fit", "--case", str(rows)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


class Clock(pl.Callback):
    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begun = time.perf_counter(), time.process_time()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.wall.append(time.perf_counter() - self._begun[0])
        self.cpu.append(time.process_time() - self._begun[1])


def synthetic(number: int) -> dict[str, Any]:
    """A table of `number` rows with the inputs of configs/features.yaml, through the whole of `fit`."""
    settings = load_settings(overrides=["training.epochs=2", "training.batch_size=512", "model.seeds=[0]"])
    draw = np.random.default_rng(0)
    columns: dict[str, Any] = {
        name: draw.gamma(2.0, 10.0, number).round(2) for name in settings.features.numeric
    }
    signal = columns["recency_days"] / (1 + columns["orders_90d"])
    columns["churned"] = (draw.random(number) < signal / (1 + signal)).astype(np.int8)
    columns["user_id"] = np.arange(number) // 10
    columns["event_timestamp"] = pd.Timestamp("2023-01-01", tz="UTC")
    table = pd.DataFrame(columns)
    columns.clear()
    clock = Clock()
    wanted = FitSettings("transactions", settings.features, settings.model, settings.training)
    spent, _ = timed(lambda: fit(table, None, wanted, callbacks=[clock]))
    return {
        "rows": number,
        "epoch_wall_s": statistics.median(clock.wall),
        "epoch_cpu_s": statistics.median(clock.cpu),
        "cpu_us_a_row": 1e6 * statistics.median(clock.cpu) / number,
        "fit_wall_s": spent["wall_s"],
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2,
    }


def show(title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{v:.2f}" if isinstance(v, float) else f"{v:,}" if isinstance(v, int) else v
                        for v in row.values()))  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
