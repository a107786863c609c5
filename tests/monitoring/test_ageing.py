"""What models lose with their age, measured on snapshots: against models that scikit-learn fits here."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from churn.settings import load_settings
from features.spec import FeaturesConfig
from monitoring import ageing
from monitoring.config import MonitoringConfig
from monitoring.findings import Monitored
from monitoring.sources import Sources
from training.evaluate.baselines import Task, logistic_regression
from training.learn.inputs import Inputs
from training.learn.metrics import log_loss

FIRST = datetime(2025, 1, 1, tzinfo=UTC)
CONFIG = MonitoringConfig()
STEP = timedelta(days=28)


def spec_of_28_days() -> FeaturesConfig:
    return load_settings(overrides=["features.horizon_days=28"]).features


def sources(folder: Path, turn: float, steps: int = 12, customers: int = 400) -> Sources:
    """Snapshots every 28 days; what `recency_days` says about churn turns by `turn` radians a step."""
    spec, draws = spec_of_28_days(), np.random.default_rng(7)
    frames = []
    for step in range(steps):
        columns = {
            one.name: draws.choice(["a", "b"], customers)
            if one.dtype == "string"
            else draws.integers(1, 100, customers).astype("int64" if one.dtype == "int64" else "float64")
            for one in spec.features
        }
        x = [(columns[name] - 50) / 30 for name in ("recency_days", "total_purchases")]
        logit = 1.5 * (np.cos(turn * step) * x[0] + np.sin(turn * step) * x[1])
        frames.append(
            pd.DataFrame(columns).assign(
                user_id=[f"c{number}" for number in range(customers)],
                event_timestamp=pd.Timestamp(FIRST + step * STEP),
                churned=(draws.random(customers) < 1 / (1 + np.exp(-logit))).astype(np.int8),
            )
        )
    rows = pd.concat(frames, ignore_index=True)
    keys = ["user_id", "event_timestamp"]
    rows.drop(columns="churned").to_parquet(folder / "snapshots.parquet")
    rows[[*keys, "churned"]].to_parquet(folder / "labels.parquet")
    at = FIRST + steps * STEP
    return Sources(spec, at - STEP, at, (), folder / "snapshots.parquet", folder / "labels.parquet",
                   folder / "none", folder / "none", folder / "none")  # fmt: skip


def measured(of: Sources, earlier: tuple[Monitored, ...] = ()) -> pd.DataFrame:
    return ageing.measure(of, of.moments(), CONFIG, earlier)


def test_it_is_the_loss_beyond_that_of_a_fresh_model_on_the_same_customers(tmp_path: Path) -> None:
    of = sources(tmp_path, turn=0.15)
    rows = pd.read_parquet(of.snapshots).merge(pd.read_parquet(of.labels), on=["user_id", "event_timestamp"])
    for ratio in of.spec.derived:
        rows[ratio.name] = rows[ratio.numerator] / np.maximum(rows[ratio.denominator], ratio.floor)
    newest = rows["event_timestamp"].max()
    judged = rows[rows["event_timestamp"] == newest]

    def loss(trained: pd.Timestamp) -> float:
        known = rows[rows["event_timestamp"] + STEP <= trained]
        task = Task(known, judged, Inputs.learn(known, of.spec), STEP, Path(), seed=0)
        return log_loss(judged["churned"].to_numpy(), logistic_regression(task))

    found = measured(of)
    assert list(found["age_days"]) == sorted(found["age_days"]) and found["age_days"].max() == 10 * 28
    assert (found["moment"] == newest.timestamp()).all() and (found["rows"] == 400).all()
    for row in found.itertuples():
        expected = loss(newest - pd.Timedelta(days=row.age_days)) - loss(newest)
        assert row.nats == pytest.approx(expected, abs=1e-6)
    assert found["nats"].iloc[-1] > 0.05, "the relation has turned"


def test_models_do_not_age_where_nothing_changes(tmp_path: Path) -> None:
    found = measured(sources(tmp_path, turn=0.0, customers=2000))
    assert found["nats"][found["age_days"] <= 200].abs().max() < 0.01


def test_each_snapshot_is_measured_once(tmp_path: Path) -> None:
    of = sources(tmp_path, turn=0.15)
    run = Monitored("churn", of.at, of.since, "v", ageing.check(measured(of)), "")
    assert measured(of, (run,)).empty
    later = replace(of, at=of.at - STEP)  # the newest outcomes are of the snapshot before
    assert not measured(later, (run,)).empty


@pytest.mark.parametrize("steps", [1, 2])
def test_too_short_a_history_is_not_measured(tmp_path: Path, steps: int) -> None:
    assert ageing.check(measured(sources(tmp_path, turn=0.1, steps=steps))).measurements == ()


def test_nothing_after_the_window_is_read(tmp_path: Path) -> None:
    of = sources(tmp_path, turn=0.15)
    early = replace(of, at=of.at - 4 * STEP)
    before = measured(early)
    labels = pd.read_parquet(of.labels)
    late = labels["event_timestamp"] + STEP > pd.Timestamp(early.at)
    labels.loc[late, "churned"] = 1 - labels.loc[late, "churned"]
    labels.to_parquet(of.labels)
    pd.testing.assert_frame_equal(before, measured(early))
