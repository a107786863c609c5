"""The study: Optuna searches the settings with the least log-loss on validation rows."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import optuna
import pandas as pd
from optuna.trial import TrialState

from core.errors import TrainingError
from core.workspace import Workspace
from model.config import ModelConfig
from training.config import TrainingConfig, TuningConfig
from training.learn.fit import assemble
from training.learn.paths import StackingChoice
from training.learn.recipe import resolve
from training.learn.resolved import FitSettings
from training.learn.trainer import prepared
from training.train import prepare
from training.tuning.slots import finished, open_storage, refill_queue, storage_errors
from training.tuning.space import apply, decoded
from training.tuning.study import StudyQueue, enqueue_starts, outcome, run_slots, study_name
from training.tuning.together import one_at_a_time
from training.tuning.trial import Objective, judged_rows, one_member
from training.tuning.workers import Workers, job_of


@dataclass(frozen=True)
class Tuned:
    """The configs with the best parameters, and the study that found them."""

    model: ModelConfig
    training: TrainingConfig
    study: str
    trials: int
    best_params: dict[str, Any]
    best_log_loss: float


def tune(
    data: pd.DataFrame,
    settings: FitSettings,
    tuning: TuningConfig,
    files: Workspace,
    progress: Callable[[str], None] = lambda message: None,
) -> Tuned:
    """Runs the study to exactly `tuning.trials` finished trials; copies of the configs with its best point.

    `data` is the content of `files.training_set`, which each worker process reads. The test rows are not
    used. A trial has one member. The first trial is the configs as given, even outside of the space, so that
    tuning never ends below them on the validation rows; the second is the best point of the last study of
    this name, if there is one. Finished trials stay after a crash, and the same call continues from them.
    With a study in PostgreSQL, processes on several machines may make the same call at the same time: they
    share the trials. With another database, one call at a time.
    No trial runs for a table on which the network does not improve on linear path and trees, unless
    `tuning.trials` was given: the space has settings of the network only.
    Raises ConfigError with a dimension that is not a setting, TrainingError if no trial completes.
    """
    rows, split = prepare(data, settings)
    as_given = Tuned(settings.model, settings.training, "", 0, {}, float("nan"))
    by_shape, tuning = tuning.depends_on_shape(settings.shape), tuning.for_shape(settings.shape)
    if not tuning.trials:
        return as_given
    resolved = resolve(settings, len(split.train))  # a trial varies the resolved settings
    judged = judged_rows(rows, split, settings.shape)
    tried: FitSettings | None = None
    if by_shape and resolved.model.wide:
        progress("finding what the network adds to the linear path and the trees")
        chosen = _chosen(judged[0], resolved)
        if chosen is not None and not chosen.combination.deep:
            progress("the network adds nothing here, so no trial runs; set tuning.trials to run some")
            return as_given
        tried = _with_epochs_of(chosen, resolved)
    digested = rows.iloc[split.train], rows.iloc[split.inner_validation]
    name = study_name(tuning, *digested, one_member(resolved))
    with storage_errors(tuning.storage):
        storage = open_storage(tuning)
        with one_at_a_time(storage.engine, name):
            queue = StudyQueue.open(storage, name, tuning, resolved.training.seed)
            if not queue.study.get_trials(deepcopy=False):
                enqueue_starts(queue, resolved)
        if tried is None and finished(queue.study) < tuning.trials and resolved.training.epochs is None:
            # once, not in every trial, since the search takes several fits
            progress("finding the number of epochs")
            tried = _with_epochs_of(_chosen(judged[0], resolved), resolved)
        _run(queue, judged, tried or resolved, files, progress)
    return _best(queue.study, tuning, resolved)


def _run(
    queue: StudyQueue,
    judged: tuple[pd.DataFrame, pd.DataFrame | None],
    settings: FitSettings,
    files: Workspace,
    progress: Callable[[str], None],
) -> None:
    """Runs the trials that are missing: in this process, or in `tuning.workers` processes."""
    study, tuning = queue.study, queue.tuning
    before = finished(study)

    def maintain() -> None:
        with one_at_a_time(queue.storage.engine, study.study_name, wait=False) as is_ours:
            if is_ours:  # else another process is doing it
                refill_queue(study, tuning.trials)

    def report(result: str) -> None:
        progress(f"trial {finished(study)} of {tuning.trials}: {result}")

    maintain()
    if tuning.workers == 1 or tuning.trials - before < 2:
        objective = Objective(*judged, settings, tuning.space, files.trial_artifacts)
        run_slots(queue, objective, tuning.timeout_s, lambda trial: report(outcome(trial)), maintain)
        return
    number = min(tuning.workers, tuning.trials - before)
    progress(f"starting {number} workers")
    with Workers(number, job_of(queue, settings, files), tuning.timeout_s) as workers:
        workers.wait(lambda: finished(study), tuning.trials, maintain, report)


def _chosen(rows: pd.DataFrame, settings: FitSettings) -> StackingChoice | None:
    """The choice by the rows for one member with the given settings."""
    with prepared(settings.training):
        return assemble(rows, None, one_member(settings)).chosen


def _with_epochs_of(chosen: StackingChoice | None, settings: FitSettings) -> FitSettings:
    if chosen is None:
        return settings
    return replace(settings, training=settings.training.model_copy(update={"epochs": chosen.epochs}))


def _best(study: optuna.Study, tuning: TuningConfig, settings: FitSettings) -> Tuned:
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        why = (
            "every trial diverged: narrow tuning.space"
            if finished(study)
            else "no trial was completed; raise tuning.timeout_s or tuning.trials"
        )
        raise TrainingError(f"study {study.study_name}: {why}")
    best = {key: decoded(tuning.space[key], value) for key, value in study.best_params.items()}
    found = apply(best, settings)
    return Tuned(found.model, found.training, study.study_name, finished(study), best, study.best_value)
