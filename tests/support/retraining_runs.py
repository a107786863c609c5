"""A small real workspace whose model serves, and newer data, for drills with processes of `churn retrain`."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from churn.cli import main
from churn.settings import CONFIGS, Settings, load_settings
from pipelines.adopt import record_stable
from pipelines.candidates import stored
from pipelines.live import archive_record
from pipelines.rollout import open_store
from retraining.ledger import Ledger, Run
from rollout.database.tables import ROLLOUTS
from support.waits import within

CUSTOMERS = 250
FAST = (
    "tuning.trials=0",
    "model.seeds=[0]",
    "model.trees=false",
    "training.epochs=1",
    "training.baselines=[base_rate]",
    "training.cross_validation=0",
    "training.test_snapshots=1",
    "features.horizon_days=30",
    "gates.profiles.tiny={parity: {tolerance: 0.001}}",
    "gates.profile=tiny",
    "gates.resamples=100",
    "retrain.vetoes.unmonitored_days=null",
    "retrain.minimum_labels=100",
    "retrain.windows={all: true, recent_days: [], season_days: null}",
    "retrain.lease_s=2",
)


def make_log(file: Path, until: str) -> None:
    """Purchases of customers with different paces from 2024 on, each of whom leaves at some time."""
    draws = np.random.default_rng(7)
    pace, stays = draws.gamma(2.0, 12.0, CUSTOMERS), draws.exponential(300.0, CUSTOMERS)
    rows = []
    for customer in range(CUSTOMERS):
        days = np.cumsum(draws.exponential(pace[customer], 200))
        days = days[days < min(stays[customer], 500)]
        rows += [(customer + 1, day, round(5 + 40 * draws.random(), 2)) for day in [0.0, *days]]
    log = pd.DataFrame(rows, columns=["customer", "day", "paid"])
    log["when"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(log["day"].round(4), unit="D")
    log = log[log["when"] < until].sort_values("when")
    log[["customer", "when", "paid"]].to_csv(file, index=False, date_format="%Y-%m-%dT%H:%M:%S")


class Shop:
    """The workspace of a small shop: a first model serves, and three months of data have arrived since."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.log = folder / "log.csv"
        self._before: set[str] = set()
        source = {"kind": "csv", "uri": str(self.log),
                  "columns": {"user_id": "customer", "timestamp": "when", "amount": "paid"}}  # fmt: skip
        given = (f"workspace={folder / 'var'}", f"data.source={json.dumps(source)}", *FAST, *more)
        self.flags = [word for value in given for word in ("--set", value)]
        self.settings: Settings = load_settings(overrides=given)
        make_log(self.log, "2024-11-01")
        for command in (["ingest"], ["features", "build"], ["features", "materialize"], ["train"], ["gates"],
                        ["package"]):  # fmt: skip
            assert main([*command, *self.flags]) == 0, command
        record = archive_record(self.settings.files)
        first = stored(self.settings, Path(record["path"]), record["sha256"])
        store = open_store(self.settings)
        record_stable(store, self.model, first, "test", "the first model", datetime.now(UTC))
        make_log(self.log, "2025-02-01")

    @property
    def model(self) -> str:
        return self.settings.serving.model_name

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.settings.rollout.database)

    def start(self, *command: str) -> subprocess.Popen[str]:
        """A process of `churn retrain`."""
        return subprocess.Popen(
            [sys.executable, "-m", "churn", "retrain", *command, *self.flags],
            cwd=CONFIGS.parent,
            env={**os.environ, "COLUMNS": "300", "PYTHONPATH": str(CONFIGS.parent)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def force(self, *more: str) -> subprocess.Popen[str]:
        self._before = {run.id for run in self.ledger.runs(self.model)}
        return self.start("--force", "--reason", "a drill", *more)

    def until(self, step: str, what: str, process: subprocess.Popen[str]) -> Run:
        """Wait for an event of a step of the run that `force` began. The process may end just after it."""

        def seen() -> Run | None:
            ended = process.poll() is not None
            for run in self.ledger.runs(self.model):
                events = [] if run.id in self._before else self.ledger.steps(run.id)
                if any((event.step, event.what) == (step, what) for event in events):
                    return run
            assert not ended, process.communicate()[1]
            return None

        found = within(240, seen)
        assert found is not None
        return found

    def rollouts(self) -> list[str]:
        return [rollout.id for rollout in open_store(self.settings).all(self.model, 1000)]

    def end_rollout(self) -> None:
        """As a controller would after an abort: none runs here."""
        with self.ledger._writing() as connection:
            over = {"active": None, "phase": "aborted", "ended": datetime.now(UTC)}
            connection.execute(ROLLOUTS.update().where(ROLLOUTS.c.active == self.model).values(over))

    def run_of(self, id: str) -> Run:
        return next(run for run in self.ledger.runs(self.model) if run.id == id)


def finished(process: subprocess.Popen[str], codes: Sequence[int] = (0,)) -> str:
    """Both outputs of a process that has ended with one of these codes."""
    out, err = process.communicate(timeout=300)
    assert process.returncode in codes, out + err
    return out + err
