import optuna
import pandas as pd
import pytest

from churn.settings import Settings
from data.errors import ConfigError
from training.config import Range, TuningConfig
from training.tune import Tuned, tune


@pytest.fixture
def rows(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["user_id"] < "u_4"]


@pytest.fixture
def tuning(tmp_path) -> TuningConfig:
    return TuningConfig(
        storage=f"sqlite:///{tmp_path}/optuna.db",
        study="s",
        trials=2,
        space={
            "training.learning_rate": Range(low=1e-4, high=1e-2, log=True),
            "model.hidden": Range(choices=([64, 64], [16])),
            "training.batch_size": Range(low=128, high=512, integer=True),
        },
    )


def tuned(small: Settings, rows: pd.DataFrame, tuning: TuningConfig, said: list[str] | None = None) -> Tuned:
    training = small.training.model_copy(update={"epochs": 2})
    progress = (said if said is not None else []).append
    return tune(rows, "transactions", small.features, small.model, training, tuning, progress)


def trials(found: Tuned, tuning: TuningConfig) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=found.study, storage=tuning.storage).trials


def test_a_study_is_brought_to_the_asked_number_and_goes_on_from_there(
    small: Settings, rows: pd.DataFrame, tuning: TuningConfig
) -> None:
    said: list[str] = []
    first = tuned(small, rows, tuning, said)
    same = tuned(small, rows, tuning)
    more = tuned(small, rows, tuning.model_copy(update={"trials": 4}), said)

    assert first.trials == same.trials == len(said) - 2 == 2
    assert first.best_params == same.best_params
    assert more.trials == 4
    assert more.study == first.study
    assert more.best_log_loss <= first.best_log_loss
    points = [tuple(trial.params.values()) for trial in trials(more, tuning)]
    assert len(set(points)) == 4  # a resumed study does not repeat its own draws
    assert said[-1].startswith("trial 4 of 4: ")


def test_the_best_is_laid_upon_the_configs_and_never_below_them(
    small: Settings, rows: pd.DataFrame, tuning: TuningConfig
) -> None:
    found = tuned(small, rows, tuning)
    given = trials(found, tuning)[0]

    assert given.params["training.learning_rate"] == small.training.learning_rate
    assert found.best_log_loss <= given.value
    assert found.training.learning_rate == found.best_params["training.learning_rate"]
    assert found.model.hidden == tuple(found.best_params["model.hidden"])
    assert found.model.seeds == small.model.seeds  # a trial is one member, the final fit is all
    assert found.training.epochs == 2


def test_the_same_seed_draws_the_same_trials(
    small: Settings, rows: pd.DataFrame, tuning: TuningConfig, tmp_path
) -> None:
    elsewhere = tuning.model_copy(update={"storage": f"sqlite:///{tmp_path}/other.db"})

    one, two = tuned(small, rows, tuning), tuned(small, rows, elsewhere)

    assert one.best_params == two.best_params
    assert one.best_log_loss == two.best_log_loss


def test_trials_of_other_rows_do_not_count(small: Settings, rows: pd.DataFrame, tuning: TuningConfig) -> None:
    few = tuning.model_copy(update={"trials": 1})
    one = tuned(small, rows, few)
    other = tuned(small, rows[rows["user_id"] > "u_1"], few)

    assert one.study != other.study
    assert other.trials == 1


def test_the_test_rows_take_no_part(small: Settings, rows: pd.DataFrame, tuning: TuningConfig) -> None:
    few = tuning.model_copy(update={"trials": 1})
    newest = rows["event_timestamp"] >= "1998-02-01"
    spoiled = rows.assign(recency_days=rows["recency_days"].mask(newest, 0.0))

    assert tuned(small, rows, few).study == tuned(small, spoiled, few).study


def test_no_trials_leave_the_configs_alone(small: Settings, rows: pd.DataFrame, tuning: TuningConfig) -> None:
    found = tuned(small, rows, tuning.model_copy(update={"trials": 0}))

    assert found.model == small.model
    assert found.best_params == {}


@pytest.mark.parametrize(
    ("key", "within", "message"),
    [
        ("model.depth", Range(low=1, high=2), r"tuning\.space\.model\.depth: no such setting"),
        ("epochs", Range(low=1, high=2), r"tuning\.space\.epochs: no such setting"),
        ("model.dropout", Range(low=0.1), r"tuning\.space\.model\.dropout: give low and high"),
        ("model.dropout", Range(low=2, high=3), r"tuning\.space: dropout: .*less than 1"),
    ],
)
def test_a_space_that_cannot_be_searched_is_named(
    small: Settings, rows: pd.DataFrame, tuning: TuningConfig, key: str, within: Range, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tuned(small, rows, tuning.model_copy(update={"space": {key: within}}))
