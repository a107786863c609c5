"""For a log, every choice is validated on snapshots a horizon after the training snapshots."""

from datetime import timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from churn.settings import Settings
from core.errors import TrainingError
from features.spec import Feature, FeaturesConfig
from model.config import ModelConfig
from support.fits import fit_settings
from training.config import TrainingConfig
from training.learn.fit import evaluate_forward, fit
from training.learn.forward import LEAST_SHARE, ORIGINS, origins
from training.learn.forward_stacking import CUSTOMERS, ladder, shrunk_weights
from training.learn.recipe import resolve
from training.learn.resolved import FitSettings

HORIZON = timedelta(days=90)


def snapshots(number: int, every: str = "MS", customers: int = 4) -> tuple[pd.Series, np.ndarray]:
    moments = pd.date_range("2021-01-01", periods=number, freq=every, tz="UTC")
    return pd.Series(np.repeat(moments, customers)), np.tile([0, 1], number * customers // 2)


@pytest.mark.parametrize(("number", "every"), [(5, "MS"), (12, "MS"), (30, "W-MON"), (60, "D")])
def test_every_validation_snapshot_is_a_horizon_after_its_training_rows(number: int, every: str) -> None:
    moments, churned = snapshots(number, every)
    horizon = HORIZON if every == "MS" else timedelta(days=28)

    folds = origins(moments, churned, horizon)

    assert 1 <= len(folds) <= ORIGINS
    for learned, judged in folds:
        assert moments.iloc[learned].max() + horizon <= moments.iloc[judged].min()
        assert moments.iloc[judged].nunique() == 1
        # all that may teach does
        assert len(learned) == (moments + horizon <= moments.iloc[judged].min()).sum()
        assert len(learned) >= LEAST_SHARE * len(moments) or judged is folds[0][1]
    judges = [moments.iloc[judged].min() for _, judged in folds]
    assert judges[0] == moments.max()
    assert all(newer - older >= horizon / 3 for newer, older in pairwise(judges))


def test_a_log_shorter_than_a_horizon_has_no_origin() -> None:
    assert origins(*snapshots(3), HORIZON) == []


def test_an_origin_of_one_class_is_left_out() -> None:
    moments, churned = snapshots(8)
    newest = (moments == moments.max()).to_numpy()

    folds = origins(moments, np.where(newest, 1, churned), HORIZON)

    assert folds
    assert not any(newest[judged].any() for _, judged in folds)


@pytest.mark.parametrize("rows", [1, 700, 20_000, 188_560, 5_000_000])
def test_more_rows_are_seen_less_often(small: Settings, rows: int) -> None:
    open_settings = fit_settings(small, model=ModelConfig(), training=TrainingConfig(baselines=()))
    training = resolve(open_settings, rows).training
    tried = ladder(rows, training)

    assert tried == sorted(set(tried))
    assert 1 <= tried[0] <= tried[-1] <= 64
    assert ladder(rows, training.model_copy(update={"epochs": 5})) == [5]


def test_few_customers_leave_the_weights_equal_and_many_find_the_better_path() -> None:
    draw = np.random.default_rng(0)
    truth = draw.normal(size=20_000)
    churned = (draw.random(20_000) < expit(truth)).astype(np.int64)
    paths = np.column_stack([truth, draw.normal(size=20_000)])

    few = shrunk_weights(paths[:40], churned[:40], customers=2)
    many = shrunk_weights(paths, churned, customers=20_000)

    assert sum(few) == pytest.approx(1)
    assert abs(few[0] - 0.5) < 0.05
    assert many[0] > 0.9
    assert min(*few, *many) >= 0
    assert CUSTOMERS > 0


def drifting(customers: int, seed: int = 0) -> pd.DataFrame:
    """Months in which the effect of `old` on churn fades and changes its sign; that of `lasting` stays."""
    draw = np.random.default_rng(seed)
    months = pd.date_range("2021-01-01", periods=10, freq="MS", tz="UTC")
    parts = []
    for number, month in enumerate(months):
        old, lasting = draw.normal(size=(2, customers))
        logit = 2.0 * (1 - number / 5) * old + lasting
        parts.append(
            pd.DataFrame(
                {
                    "user_id": [f"u{i:05}" for i in range(customers)],
                    "event_timestamp": month,
                    "old": old,
                    "lasting": lasting,
                    "churned": (draw.random(customers) < expit(logit)).astype("int8"),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def test_validation_a_horizon_later_decides(small: Settings) -> None:
    """Within its months every path gains by `old`; a horizon later it misleads."""
    spec = FeaturesConfig(
        features=tuple(Feature(name=name, dtype="float64") for name in ("old", "lasting")), horizon_days=90
    )
    training = small.training.model_copy(update={"epochs": None, "batch_size": 64})
    model = ModelConfig(seeds=(0,), hidden=(16,))
    settings, rows = FitSettings("transactions", spec, model, training), drifting(150)

    fitted = fit(rows, None, settings)

    assert fitted.settings.training.epochs == ladder(len(rows), resolve(settings, len(rows)).training)[0]
    weights = fitted.record.cross_fit
    assert weights["weight_line"] + weights["weight_trees"] + weights["weight_deep"] == pytest.approx(1)
    assert weights["weight_shift"] == 0.0


def test_a_log_without_an_origin_gets_the_stated_mean(small: Settings, rows: pd.DataFrame) -> None:
    newest = rows[rows["event_timestamp"] >= rows["event_timestamp"].max() - timedelta(days=40)]
    training = small.training.model_copy(update={"epochs": 2})
    model = small.model.model_copy(update={"seeds": (0,)})
    settings = fit_settings(small, model=model, training=training)

    fitted = fit(newest, None, settings)

    weights = fitted.record.cross_fit
    assert (weights["weight_line"], weights["weight_deep"]) == (0.5, 0.5)
    with pytest.raises(TrainingError, match="horizon_days"):
        evaluate_forward(newest, settings)


def test_no_newer_snapshot_changes_what_an_origin_is_judged_by(small: Settings, rows: pd.DataFrame) -> None:
    """The oldest origin's log-loss, with and without the snapshots that come after it."""
    training = small.training.model_copy(update={"epochs": 1})
    model = small.model.model_copy(update={"seeds": (0,)})
    settings = fit_settings(small, model=model, training=training)
    train = rows[rows["event_timestamp"] <= "1997-11-01"].reset_index(drop=True)
    folds = origins(train["event_timestamp"], train["churned"].to_numpy(), small.features.horizon)
    judge = train["event_timestamp"].iloc[folds[-1][1]].max()

    def of_origins(some: pd.DataFrame) -> list[float]:
        found: list[float] = []
        evaluate_forward(some, settings, origin_judged=found.append)
        return found

    alone = train[train["event_timestamp"] <= judge].reset_index(drop=True)
    assert of_origins(train)[-1] == pytest.approx(of_origins(alone)[0], abs=2e-3)
