"""Cross-validation, rolling origin and importance: which rows, what numbers, and where they are shown."""

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.inspection import permutation_importance as theirs

from churn.settings import Settings
from core.workspace import Workspace
from features.spec import Feature, FeaturesConfig, Ratio
from model.config import ModelConfig
from training.config import TrainingConfig
from training.evaluate import cross_validation
from training.evaluate.appraisal import appraisal_metrics, read_appraisal
from training.evaluate.cross_validation import METRICS, cross_validate, folds_of
from training.evaluate.importance import importances, permutation_importance, with_values
from training.learn.fit import fit
from training.learn.inputs import Inputs
from training.learn.metrics import evaluate
from training.learn.resolved import FitSettings
from training.learn.split import BY_CUSTOMER, BY_TIME, split_rows

SPEC = FeaturesConfig(
    features=tuple(Feature(name=name, dtype="float64") for name in ("a", "b", "c")),
    derived=(Ratio(name="a_by_b", numerator="a", denominator="b", floor=0.5),),
)
DAY = timedelta(days=1)
QUICK = ModelConfig(seeds=(0, 1), architecture="mlp", hidden=(16,), numeric_embedding="none", trees=False)
TRAINING = TrainingConfig(epochs=2, batch_size=128)
SETTINGS = FitSettings("labelled", SPEC, QUICK, TRAINING)


def table(rows: int, seed: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    a, b, c = draw.normal(size=(3, rows))
    frame = pd.DataFrame(
        {"user_id": [f"u{i}" for i in range(rows)], "a": a, "b": b, "c": c}
        | {"event_timestamp": pd.Timestamp("2024-01-01", tz="UTC")}
    )
    frame["a_by_b"] = frame["a"] / frame["b"].clip(lower=0.5)
    return frame.assign(churned=(draw.random(rows) < expit(1.5 * a)).astype("int8"))


def test_every_row_of_a_table_is_judged_once_by_a_model_that_has_not_seen_it() -> None:
    rows = table(3000)
    split = split_rows(rows, "labelled", DAY, TRAINING)
    folds = list(folds_of(rows, split, DAY, TRAINING))

    assert sorted(np.concatenate([judged for _, _, judged in folds])) == list(range(3000))
    for _, learned, judged in folds:
        assert not set(learned) & set(judged)
        assert abs(len(judged) - 600) < 4 * np.sqrt(600 * 0.8)


def test_more_rows_move_no_row_to_another_fold() -> None:
    rows = table(1000)
    more = pd.concat([table(1000, seed=1).assign(user_id=[f"n{i}" for i in range(1000)]), rows])
    more = more.reset_index(drop=True)

    def judged(frame: pd.DataFrame) -> list[set[str]]:
        split = split_rows(frame, "labelled", DAY, TRAINING)
        folds = folds_of(frame, split, DAY, TRAINING)
        return [set(frame["user_id"].iloc[part]) & set(rows["user_id"]) for _, _, part in folds]

    assert judged(rows) == judged(more)


def test_the_blocks_of_a_log_learn_from_what_came_a_horizon_before(
    small: Settings, rows: pd.DataFrame
) -> None:
    horizon, moments = small.features.horizon, rows["event_timestamp"]
    split = split_rows(rows, "transactions", horizon, small.training)
    folds = list(folds_of(rows, split, horizon, small.training.model_copy(update={"cross_validation": 5})))

    names = [name for name, _, _ in folds]
    assert names == [
        "1998-02-01 to 1998-04-01",
        "1997-11-01 to 1998-01-01",
        "1997-08-01 to 1997-10-01",
    ]
    assert np.array_equal(np.sort(folds[0][2]), np.sort(split.test))
    assert np.array_equal(np.sort(folds[0][1]), np.sort(split.train))
    for _, learned, judged in folds:
        assert moments.iloc[learned].max() + horizon <= moments.iloc[judged].min()


def test_a_panel_is_judged_in_blocks_of_time() -> None:
    months = pd.date_range("2024-01-01", periods=12, freq="MS", tz="UTC")
    rows = pd.concat([table(200, seed=i).assign(event_timestamp=at) for i, at in enumerate(months)])
    rows = rows.reset_index(drop=True)
    split = split_rows(rows, "labelled", DAY, TRAINING)
    folds = list(folds_of(rows, split, DAY, TRAINING))
    moments = rows["event_timestamp"]

    assert split.rule == BY_TIME
    assert np.array_equal(folds[0][2], split.test)
    assert len(folds) >= 2
    for _, learned, judged in folds:
        assert moments.iloc[learned].max() < moments.iloc[judged].min()


def test_mean_and_spread_are_those_of_the_folds_fitted_by_hand() -> None:
    rows = table(1500)
    split = split_rows(rows, "labelled", DAY, TRAINING)
    fitted = fit(rows.iloc[split.train], None, SETTINGS)
    assert split.rule == BY_CUSTOMER

    found = cross_validate(rows, split, fitted)

    assert found is not None and len(found.folds) == 5
    one = replace(SETTINGS, model=QUICK.model_copy(update={"seeds": (0,)}))
    expected = []
    for _, learned, judged in folds_of(rows, split, DAY, TRAINING):
        by_hand = fit(rows.iloc[learned], None, one, chosen=fitted.chosen)
        expected.append(evaluate(rows["churned"].iloc[judged], by_hand.score(rows.iloc[judged])))
    for name in METRICS:
        values = [metrics[name] for metrics in expected]
        assert found.mean[name] == pytest.approx(np.mean(values), abs=1e-9)
        assert found.spread[name] == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    off = fitted.settings.training.model_copy(update={"cross_validation": 0})
    without = replace(fitted, settings=replace(fitted.settings, training=off))
    assert cross_validate(rows, split, without) is None


def test_the_cost_of_a_fold_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table(3000)
    split = split_rows(rows, "labelled", DAY, TRAINING)
    fitted = fit(rows.iloc[split.train], None, SETTINGS)
    monkeypatch.setattr(cross_validation, "LEARNED_ROWS", 500)
    monkeypatch.setattr(cross_validation, "JUDGED_ROWS", 200)
    lines: list[str] = []

    found = cross_validate(rows, split, fitted, lines.append)

    assert found is not None
    for fold in found.folds:
        assert abs(fold.learned_rows - 500) < 4 * np.sqrt(500)
        assert abs(fold.judged_rows - 200) < 4 * np.sqrt(200)
    assert lines[0] == "cross-validation: 1 of 5, fold 1"


def logit_of(rows: pd.DataFrame) -> np.ndarray:
    return expit(1.2 * rows["a"] + 0.5 * rows["a_by_b"]).to_numpy()


class ByFormula(ClassifierMixin, BaseEstimator):
    """The formula as scikit-learn wants a model, over the three stored features."""

    classes_ = np.array([0, 1])

    def fit(self, x: object, y: object) -> "ByFormula":
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        frame = pd.DataFrame(x, columns=["a", "b", "c"])
        frame["a_by_b"] = frame["a"] / frame["b"].clip(lower=0.5)
        p = logit_of(frame)
        return np.column_stack([1 - p, p])


def test_importance_is_that_of_scikit_learn() -> None:
    rows = table(4000)
    reference = theirs(
        ByFormula(), rows[["a", "b", "c"]].to_numpy(), rows["churned"], scoring="neg_log_loss",
        n_repeats=30, random_state=0,
    )  # fmt: skip

    found = permutation_importance(logit_of, SPEC, rows, seed=1, repeats=30)

    by_name = {one.feature: one for one in found}
    assert found[0].feature == "a"
    for name, mean, spread in zip("abc", reference.importances_mean, reference.importances_std, strict=True):
        assert by_name[name].increase == pytest.approx(mean, abs=4 * spread / np.sqrt(15) + 1e-9)
        assert by_name[name].low <= by_name[name].increase <= by_name[name].high
    assert by_name["a"].low > 0
    assert by_name["c"].increase == 0.0  # the formula does not read it


def test_what_is_derived_from_a_feature_follows_it() -> None:
    rows = table(50)
    order = np.random.default_rng(0).permutation(50)
    changed = with_values(rows, SPEC, "b", order)

    b = rows["b"].to_numpy()[order]
    assert np.array_equal(changed["b"], b)
    assert np.array_equal(changed["a_by_b"], rows["a"] / np.maximum(b, 0.5))
    assert np.array_equal(changed["a"], rows["a"])


def test_a_training_leaves_both_for_run_card_and_report(trained: Workspace, small: Settings) -> None:
    content = read_appraisal(trained.training)
    metrics = appraisal_metrics(trained.training)

    assert content["cross_validation"]["method"] == "rolling origin"
    assert {one["feature"] for one in content["importance"]} == {f.name for f in small.features.features}
    assert metrics["cross_validation/log_loss/mean"] == content["cross_validation"]["mean"]["log_loss"]
    assert "importance/recency_days" in metrics
    json.dumps(content, allow_nan=False)


def test_a_training_without_an_appraisal_shows_none(tmp_path) -> None:
    assert read_appraisal(tmp_path) == {"cross_validation": None, "importance": []}
    assert appraisal_metrics(tmp_path) == {}


def test_the_rows_that_importance_scores_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[int] = []

    def counted(program: object, numeric: np.ndarray, codes: np.ndarray) -> np.ndarray:
        scored.append(len(numeric))
        return np.full(len(numeric), 0.5)

    rows = table(20_000)
    monkeypatch.setattr("training.evaluate.importance.score", counted)
    monkeypatch.setattr("training.evaluate.importance.SCORED_ROWS", 9_000)

    importances(None, Inputs.learn(rows, SPEC), SPEC, rows, seed=0)

    assert len(scored) == 4  # as they are, then each feature
    assert abs(scored[0] - 3_000) < 4 * np.sqrt(3_000)
