import json
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from mlflow import MlflowClient
from scipy.special import expit

from churn.settings import Settings
from core.errors import ConfigError, TrainingError
from core.workspace import Workspace
from features.spec import Feature, FeaturesConfig
from pipelines import plots
from support.fits import fit_settings
from training.config import Range, TuningConfig
from training.tuning.slots import open_storage
from training.tuning.study import summarise
from training.tuning.study_runs import record_study
from training.tuning.tune import Tuned, tune


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


def tuned(
    small: Settings, rows: pd.DataFrame, tuning: TuningConfig, messages: list[str] | None = None
) -> Tuned:
    training = small.training.model_copy(update={"epochs": 2})
    progress = (messages if messages is not None else []).append
    files = Workspace(Path(tuning.storage.removeprefix("sqlite:///")).parent)
    return tune(rows, fit_settings(small, training=training), tuning, files, progress)


def trials(found: Tuned, tuning: TuningConfig) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=found.study, storage=tuning.storage).trials


def test_a_study_reaches_the_wanted_number_and_continues_from_there(
    small: Settings, rows: pd.DataFrame, tuning: TuningConfig
) -> None:
    messages: list[str] = []
    first = tuned(small, rows, tuning, messages)
    same = tuned(small, rows, tuning)
    more = tuned(small, rows, tuning.model_copy(update={"trials": 4}), messages)

    assert first.trials == same.trials == len(messages) - 2 == 2
    assert first.best_params == same.best_params
    assert more.trials == 4
    assert more.study == first.study
    assert more.best_log_loss <= first.best_log_loss
    points = [tuple(trial.params.values()) for trial in trials(more, tuning)]
    assert len(set(points)) == 4  # a resumed study does not repeat its own draws
    assert messages[-1].startswith("trial 4 of 4: ")


def test_the_best_point_overrides_the_configs_and_is_never_worse(
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


def test_an_interrupted_study_continues_without_a_difference(
    small: Settings, rows: pd.DataFrame, tuning: TuningConfig, tmp_path
) -> None:
    long = tuning.model_copy(update={"trials": 6})
    elsewhere = long.model_copy(update={"storage": f"sqlite:///{tmp_path}/other.db"})
    whole = tuned(small, rows, elsewhere)
    tuned(small, rows, tuning)
    resumed = tuned(small, rows, long)

    assert [t.params for t in trials(resumed, tuning)] == [t.params for t in trials(whole, elsewhere)]
    assert [t.value for t in trials(resumed, tuning)] == [t.value for t in trials(whole, elsewhere)]


def test_other_rows_start_from_the_last_best(
    small: Settings, rows: pd.DataFrame, tuning: TuningConfig
) -> None:
    last = tuned(small, rows, tuning.model_copy(update={"trials": 3}))
    best = min(trials(last, tuning), key=lambda trial: trial.value)
    narrow = {**tuning.space, "model.hidden": Range(choices=([64, 64], [8]))}
    new = tuned(small, rows[rows["user_id"] > "u_1"], tuning.model_copy(update={"space": narrow}))

    expected = {k: v for k, v in best.params.items() if k != "model.hidden" or v != "[16]"}
    started = trials(new, tuning)[:2]
    assert any(expected.items() <= trial.params.items() for trial in started)


def test_each_trial_leaves_its_plot_and_metrics(
    small: Settings, rows: pd.DataFrame, tuning: TuningConfig, tmp_path
) -> None:
    found = tuned(small, rows, tuning)
    for trial in trials(found, tuning):
        files_of_trial = {
            meta.filename: (tmp_path / "optuna-artifacts" / meta.artifact_id).read_bytes()
            for meta in optuna.artifacts.get_all_artifact_meta(trial, storage=open_storage(tuning))
        }
        assert files_of_trial["calibration.png"].startswith(b"\x89PNG")
        metrics = json.loads(files_of_trial["metrics.json"])
        assert metrics["log_loss"] == trial.value
        assert metrics["steps"] == list(trial.intermediate_values.values())


def test_mlflow_gets_one_run_a_trial_below_the_study_s_and_only_once(
    small: Settings, rows: pd.DataFrame, tuning: TuningConfig, tmp_path
) -> None:
    where = {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db", "artifacts_uri": str(tmp_path / "a")}
    training = small.training.model_copy(update=where)
    name = tuned(small, rows, tuning).study
    parent = record_study(name, training, tuning)
    more = tuning.model_copy(update={"trials": 3})
    tuned(small, rows, more)
    assert record_study(name, training, more) == record_study(name, training, more) == parent

    client = MlflowClient(training.tracking_uri)
    experiment = client.get_experiment_by_name(training.experiment)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    children = {
        int(run.data.tags["optuna.trial"]): run
        for run in runs
        if run.data.tags.get("mlflow.parentRunId") == parent
    }
    assert len(runs) == 4
    for trial in trials(tuned(small, rows, more), tuning):
        run = children[trial.number]
        assert run.data.params == {key: str(value) for key, value in trial.params.items()}
        if trial.state.name == "COMPLETE":
            assert (run.data.metrics["log_loss"], run.info.status) == (trial.value, "FINISHED")
        assert run.data.tags["state"] == trial.state.name
    assert client.get_run(parent).data.metrics["trials"] == 3


def test_the_report_s_plots_are_of_the_study(
    small: Settings, rows: pd.DataFrame, tuning: TuningConfig
) -> None:
    longer = tuning.model_copy(update={"trials": 8})
    summary = summarise(tuned(small, rows, longer).study, longer)
    shown = [(t.number, t.value, t.state.name == "COMPLETE") for t in summary.trials if t.value is not None]

    assert set(summary.importances) <= set(tuning.space)
    if summary.importances:
        assert sum(summary.importances.values()) == pytest.approx(1)
    assert plots.tuning_history(shown).startswith("<svg")
    assert "hidden" in plots.tuning_importances({"model.hidden": 0.7, "training.batch_size": 0.3})


def test_a_table_on_which_the_network_adds_nothing_gets_only_the_trials_that_were_given(
    small: Settings, tuning: TuningConfig
) -> None:
    draw = np.random.default_rng(0)
    spend = draw.normal(size=600)
    table = pd.DataFrame(
        {
            "user_id": [f"u_{number}" for number in range(600)],
            "event_timestamp": pd.Timestamp("2024-01-01", tz="UTC"),
            "spend": spend,
            "churned": (draw.random(600) < expit(spend)).astype("int8"),
        }
    )
    spec = FeaturesConfig(features=(Feature(name="spend", dtype="float64"),))
    model = small.model.model_copy(update={"wide": True, "trees": True})
    by_shape = TuningConfig(**tuning.model_dump(exclude={"trials"}))
    training = small.training.model_copy(update={"epochs": 2, "baselines": ()})
    files = Workspace(Path(tuning.storage.removeprefix("sqlite:///")).parent)
    messages: list[str] = []

    settings = fit_settings(small, "labelled", spec=spec, model=model, training=training)
    left = tune(table, settings, by_shape, files, messages.append)
    one = by_shape.model_copy(update={"trials": 1})
    found = tune(table, settings, one, files)

    assert (left.study, left.trials, left.model) == ("", 0, model)
    assert "set tuning.trials to run some" in messages[-1]
    assert found.trials == 1


def test_no_trial_starts_after_the_timeout(small: Settings, rows: pd.DataFrame, tuning: TuningConfig) -> None:
    short = tuning.model_copy(update={"trials": 500, "timeout_s": 0.1})
    found = tuned(small, rows, short)

    assert found.trials == 1  # it had started, and was finished


@pytest.mark.parametrize(
    ("key", "within", "message"),
    [
        ("model.depth", Range(low=1, high=2), r"tuning\.space\.model\.depth: no such setting"),
        ("epochs", Range(low=1, high=2), r"tuning\.space\.epochs: no such setting"),
        ("model.dropout", Range(low=0.1), r"tuning\.space\.model\.dropout: give low and high"),
        ("model.dropout", Range(low=2, high=3), r"tuning\.space\.model\.dropout: .*less than 1"),
    ],
)
def test_a_space_that_cannot_be_searched_is_named(
    small: Settings, rows: pd.DataFrame, tuning: TuningConfig, key: str, within: Range, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tuned(small, rows, tuning.model_copy(update={"space": {key: within}}))


def test_the_first_trial_is_the_configs_as_given_even_outside_of_the_space(
    small: Settings, rows: pd.DataFrame, tuning: TuningConfig
) -> None:
    """The learning rate of the configs is .003; the space begins above it."""
    above = {"training.learning_rate": Range(low=0.5, high=1.0, log=True)}
    found = tuned(small, rows, tuning.model_copy(update={"space": above}))
    first, second = trials(found, tuning)

    assert first.params == {}
    assert second.params["training.learning_rate"] >= 0.5
    inside = {"training.learning_rate": Range(low=1e-4, high=1e-2, log=True)}
    elsewhere = tuning.model_copy(update={"space": inside, "study": "inside", "trials": 1})
    assert trials(tuned(small, rows, elsewhere), elsewhere)[0].value == first.value
    assert found.best_log_loss <= first.value
    if found.best_log_loss == first.value:
        assert found.training.learning_rate == small.training.learning_rate


def test_a_study_whose_trials_all_diverge_is_an_error_with_the_remedy(
    small: Settings, rows: pd.DataFrame, tuning: TuningConfig
) -> None:
    wild = small.model_copy(
        update={"training": small.training.model_copy(update={"learning_rate": 1e30, "gradient_clip": 1e30})}
    )
    space = {"training.learning_rate": Range(low=1e30, high=1e31, log=True)}
    with pytest.raises(TrainingError, match=r"every trial diverged: narrow tuning\.space"):
        tuned(wild, rows, tuning.model_copy(update={"space": space}))
