import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from churn.settings import load_settings
from features.spec import Feature, FeaturesConfig
from model.config import ModelConfig
from training.config import TrainingConfig
from training.fit import fit
from training.metrics import log_loss
from training.recipe import settle

OPEN = TrainingConfig(baselines=())


@pytest.mark.parametrize("rows", [500, 7_000, 188_560, 5_000_000])
@pytest.mark.parametrize("shape", ["transactions", "labelled"])
def test_every_gap_is_filled_but_the_epochs_of_a_table(shape, rows: int) -> None:
    model, training = settle(ModelConfig(), OPEN, shape, rows)

    assert None not in model.model_dump().values()
    assert (training.epochs is None) == (shape == "labelled")
    assert None not in (training.batch_size, training.learning_rate, training.weight_decay)


def test_what_is_given_wins() -> None:
    given = ModelConfig(dropout=0.0, wide=False, hidden=(7,)), OPEN.model_copy(update={"epochs": 2})

    model, training = settle(*given, "labelled", 1000)

    assert (model.dropout, model.wide, model.hidden, training.epochs) == (0.0, False, (7,), 2)


def test_the_shipped_configs_leave_it_to_the_rule() -> None:
    settings = load_settings()
    model, training = settle(settings.model, settings.training, "transactions", 188_560)

    assert (model.architecture, model.hidden, model.wide, training.epochs) == ("mlp", (128, 128), False, 4)


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

    scores = fit(train, None, spec, ModelConfig(), OPEN).score(test.assign(city="nowhere"))

    churned = test["churned"].to_numpy()
    nothing = log_loss(churned, np.full(900, train["churned"].mean()))
    assert np.isfinite(scores).all()
    assert log_loss(churned, scores) < 0.5 * nothing + 0.5 * log_loss(churned, truth[900:])
