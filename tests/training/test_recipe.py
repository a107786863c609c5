import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from churn.settings import load_settings
from features.spec import Feature, FeaturesConfig
from model.config import ModelConfig
from support.fits import fit_settings
from training.config import TrainingConfig
from training.learn.fit import Fitted, fit
from training.learn.metrics import log_loss
from training.learn.recipe import resolve
from training.learn.resolved import FitSettings

OPEN = TrainingConfig(baselines=())
SPEC = FeaturesConfig(features=(Feature(name="spend", dtype="float64"),))


def settings_of(
    spec: FeaturesConfig, model: ModelConfig | None = None, training: TrainingConfig = OPEN, shape="labelled"
) -> FitSettings:
    return FitSettings(shape, spec, model or ModelConfig(), training)


@pytest.mark.parametrize("rows", [500, 7_000, 188_560, 5_000_000])
@pytest.mark.parametrize("shape", ["transactions", "labelled"])
def test_every_gap_is_filled_but_the_epochs(shape, rows: int) -> None:
    resolved = resolve(settings_of(SPEC, shape=shape), rows)
    model, training = resolved.model, resolved.training

    open_yet = {"purchase_process"}  # its columns and the purchases themselves decide, in the fit
    assert None not in model.model_dump(exclude=open_yet).values()
    assert training.epochs is None  # the rows decide, in the fit
    assert None not in (training.batch_size, training.learning_rate, training.weight_decay)


def test_given_values_override_the_rule() -> None:
    given = ModelConfig(dropout=0.0, wide=False, hidden=(7,))

    resolved = resolve(settings_of(SPEC, given, OPEN.model_copy(update={"epochs": 2})), 1000)

    model, training = resolved.model, resolved.training

    assert (model.dropout, model.wide, model.hidden, training.epochs) == (0.0, False, (7,), 2)


def test_the_shipped_configs_leave_it_to_the_rule() -> None:
    resolved = resolve(fit_settings(load_settings()), 188_560)
    model, training = resolved.model, resolved.training

    assert (model.architecture, model.hidden, model.wide, training.epochs) == ("mlp", (128, 128), True, None)


def test_an_awkward_small_table_is_learned_as_well_as_it_can_be() -> None:
    """900 rows, 6 % churn, 300 categories, gaps that mean something; a constant, an empty, a wild column."""
    draw = np.random.default_rng(0)
    rows = 1800
    linear = draw.normal(size=rows)
    gap = draw.random(rows) < 0.3
    truth = expit(-3.4 + 1.2 * linear + 1.5 * gap)
    frame = pd.DataFrame(
        {
            "user_id": [f"u{i:05}" for i in range(rows)],
            "event_timestamp": pd.Timestamp("2019-01-01", tz="UTC"),
            "linear": linear,
            "gaps": np.where(gap, np.nan, draw.lognormal(size=rows)),
            "constant": 5.0,
            "empty": np.nan,
            "wild": draw.standard_cauchy(rows) * 1e6,
            "city": draw.integers(0, 300, rows).astype(str),
            "churned": (draw.random(rows) < truth).astype("int8"),
        }
    )
    numbers = ("linear", "gaps", "constant", "empty", "wild")
    spec = FeaturesConfig(
        features=(*(Feature(name=n, dtype="float64") for n in numbers), Feature(name="city", dtype="string"))
    )
    train, test = frame.iloc[:900], frame.iloc[900:]

    scores = fit(train, None, settings_of(spec)).score(test.assign(city="nowhere"))

    churned = test["churned"].to_numpy()
    nothing = log_loss(churned, np.full(900, train["churned"].mean()))
    assert np.isfinite(scores).all()
    assert log_loss(churned, scores) < 0.5 * nothing + 0.5 * log_loss(churned, truth[900:])


ONE_EPOCH = OPEN.model_copy(update={"epochs": 1})
"""Line, trees and their shares are found in seconds; the deep path would take longer."""


def table(churn: NDArray[np.float64], x: NDArray[np.float64]) -> tuple[pd.DataFrame, FeaturesConfig]:
    """Rows that churn with the probability `churn`."""
    frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])])
    frame = frame.assign(
        user_id=[f"u{i:06}" for i in range(len(x))],
        event_timestamp=pd.Timestamp("2019-01-01", tz="UTC"),
        churned=(np.random.default_rng(1).random(len(x)) < churn).astype("int8"),
    )
    features = tuple(Feature(name=f"x{i}", dtype="float64") for i in range(x.shape[1]))
    return frame, FeaturesConfig(features=features)


def against_logistic_regression(
    frame: pd.DataFrame, spec: FeaturesConfig, learned: int
) -> tuple[float, float, Fitted]:
    """Test log-loss of ours and of scikit-learn's, and ours."""
    train, test = frame.iloc[:learned], frame.iloc[learned:]
    ours = fit(train, None, settings_of(spec, ModelConfig(seeds=(0,)), ONE_EPOCH))
    columns, churned = list(spec.numeric), test["churned"].to_numpy()
    line = LogisticRegression().fit(train[columns], train["churned"]).predict_proba(test[columns])[:, 1]
    return log_loss(churned, ours.score(test)), log_loss(churned, line), ours


def test_noise_is_not_learned() -> None:
    """On average over three tables: on one of them chance decides."""
    beyond_line, beyond_nothing = [], []
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=(4000, 6))
        frame, spec = table(np.full(4000, 0.2), x)

        ours, line, fitted = against_logistic_regression(frame, spec, 1500)

        churned = frame["churned"].to_numpy()
        nothing = log_loss(churned[1500:], np.full(2500, churned[:1500].mean()))
        assert fitted.record.cross_fit["weight_deep"] == 0.0
        beyond_line.append(ours - line)
        beyond_nothing.append(ours - nothing)
    assert np.mean(beyond_line) < 0
    assert np.mean(beyond_nothing) < 0.002


def test_an_interaction_of_columns_is_found() -> None:
    x = np.random.default_rng(0).normal(size=(6000, 6))
    frame, spec = table(expit(-1 + 3 * ((x[:, 0] > 0) != (x[:, 1] > 0))), x)

    ours, line, _ = against_logistic_regression(frame, spec, 3000)

    assert ours < line - 0.1


def test_on_linear_data_the_model_is_as_good_as_a_regression() -> None:
    x = np.random.default_rng(0).normal(size=(5200, 12))
    frame, spec = table(expit(x @ np.linspace(-1, 1, 12)), x)

    ours, line, _ = against_logistic_regression(frame, spec, 1200)

    assert ours < line + 0.01


def test_the_same_rows_give_the_same_scores() -> None:
    x = np.random.default_rng(0).normal(size=(1200, 4))
    frame, spec = table(expit(x[:, 0] * x[:, 1]), x)

    one, two = (
        fit(frame, None, settings_of(spec, ModelConfig(seeds=(0,)), ONE_EPOCH)).score(frame) for _ in range(2)
    )

    assert np.array_equal(one, two)
