"""A study in MLflow: one run for the study, with a child run for each trial that has ended."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from math import isfinite
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from training.config import TrainingConfig, TuningConfig
from training.registry.mlflow_client import client_of, experiment_of, failed_on_error, mlflow_errors
from training.tuning.slots import open_storage, storage_errors
from training.tuning.together import one_at_a_time

STATUS = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}
STUDY, TRIAL = "optuna.study", "optuna.trial"
"""Tags that identify the run of a study or of a trial."""


def record_study(name: str, training: TrainingConfig, tuning: TuningConfig) -> str:
    """Records the study and every ended trial (params, metrics by epoch, state); the id of the study's run.

    It is called after the study, so that no trial waits for MLflow. Trials recorded before are not changed: a
    second call adds only new trials, also one of another machine at the same time, which waits for the first.
    Raises TrainingError if the tracking server cannot be reached.
    """
    with storage_errors(tuning.storage):
        storage = open_storage(tuning)
        with one_at_a_time(storage.engine, f"runs of {name}"):
            return _record_study(name, training, tuning, storage)


def _record_study(name: str, training: TrainingConfig, tuning: TuningConfig, storage: RDBStorage) -> str:
    from mlflow.entities import Metric, RunTag

    with storage_errors(tuning.storage):
        study = optuna.load_study(study_name=name, storage=storage)
        trials = study.get_trials(deepcopy=False, states=tuple(STATUS))
        best, least = study.best_trial, study.best_value
    with mlflow_errors(training.tracking_uri):
        client = client_of(training.tracking_uri)
        experiment = experiment_of(client, training)
        known = _recorded(client, experiment, name)
        if (parent := known.pop("", None)) is None:
            tags = {STUDY: name, "mlflow.runName": name}
            parent = client.create_run(experiment, _ms(trials[0].datetime_start), tags=tags).info.run_id
        with failed_on_error(client, parent):
            for trial in trials:
                if str(trial.number) not in known:
                    _record_trial(client, experiment, parent, name, trial)
            end = max(_ms(trial.datetime_complete) for trial in trials)
            count = sum(t.state != TrialState.FAIL for t in trials)
            summary = {"best_log_loss": least, "trials": float(count)}
            client.log_batch(
                parent,
                metrics=[Metric(key, value, end, count) for key, value in summary.items()],
                tags=[RunTag(f"best.{key}", str(value)) for key, value in best.params.items()],
            )
            client.set_terminated(parent, "FINISHED", end)
    return str(parent)


def _record_trial(client: Any, experiment: str, parent: str, name: str, trial: FrozenTrial) -> None:
    """Writes the run of one trial. An incomplete run is deleted, so that the next call writes it again."""
    from mlflow.entities import Metric, Param

    tags = {STUDY: name, TRIAL: str(trial.number), "mlflow.parentRunId": parent}
    tags |= {"mlflow.runName": f"trial {trial.number}", "state": trial.state.name}
    start, end = _ms(trial.datetime_start), _ms(trial.datetime_complete)
    run = client.create_run(experiment, start, tags=tags).info.run_id
    try:
        client.log_batch(
            run,
            metrics=[Metric(key, value, end, step) for key, value, step in _metrics(trial)],
            params=[Param(key, str(value)) for key, value in trial.params.items()],
        )
        client.set_terminated(run, STATUS[trial.state], end)
    except BaseException:
        with suppress(Exception):  # the error may come from the tracking server
            client.delete_run(run)
        raise


def _recorded(client: Any, experiment: str, name: str) -> dict[str, str]:
    """Trial number -> run id of all complete runs, and "" -> the study's run."""
    found: dict[str, str] = {}
    token = None
    while True:
        page = client.search_runs(
            [experiment], f"tags.`{STUDY}` = '{name}'", max_results=1000, page_token=token
        )
        for run in page:
            number = run.data.tags.get(TRIAL, "")
            if number and run.info.status == "RUNNING":  # the process was killed while it wrote this run
                client.delete_run(run.info.run_id)
            else:
                found[number] = run.info.run_id
        if not (token := page.token):
            return found


def _metrics(trial: FrozenTrial) -> Sequence[tuple[str, float, int]]:
    epochs = [("log_loss_by_step", value, step) for step, value in trial.intermediate_values.items()]
    # the value of a pruned trial is its last epoch's, which must not count when runs are sorted
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        epochs.append(("log_loss", trial.value, 0))
    return [(key, float(value), step) for key, value, step in epochs if isfinite(value)]


def _ms(moment: datetime | None) -> int:
    return 0 if moment is None else int(moment.timestamp() * 1000)
