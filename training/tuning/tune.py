"""The study: Optuna searches the settings with the least log-loss on validation rows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from core.errors import TrainingError
from core.workspace import Workspace
from features.spec import FeaturesConfig
from model.config import ModelConfig
from training.config import TrainingConfig, TuningConfig
from training.learn.fit import assemble, prepared
from training.learn.recipe import resolve_settings
from training.learn.split import Shape
from training.learn.stacking import StackingChoice
from training.train import prepare
from training.tuning.slots import finished, open_storage, refill_queue, storage_errors
from training.tuning.space import apply, decoded
from training.tuning.study import enqueue_starts, open_study, outcome, run_slots, study_name
from training.tuning.trial import Objective, judged_rows, one_member
from training.tuning.workers import Workers


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
    shape: Shape,
    spec: FeaturesConfig,
    model: ModelConfig,
    training: TrainingConfig,
    tuning: TuningConfig,
    files: Workspace,
    progress: Callable[[str], None] = lambda message: None,
) -> Tuned:
    """Runs the study to exactly `tuning.trials` finished trials; copies of the configs with its best point.

    `data` is the content of `files.training_set`, which each worker process reads. The test rows are not
    used. A trial has one member. The first trial is the configs as given, even outside of the space, so that
    tuning never ends below them on the validation rows; the second is the best point of the last study of
    this name, if there is one. Finished trials stay after a crash, and the same call continues from them. Do
    not call it concurrently.
    No trial runs for a table on which the network does not improve on linear path and trees, unless
    `tuning.trials` was given: the space has settings of the network only.
    Raises ConfigError with a dimension that is not a setting, TrainingError if no trial completes.
    """
    rows, split = prepare(data, shape, spec, training)
    as_given = Tuned(model, training, "", 0, {}, float("nan"))
    by_shape, tuning = tuning.depends_on_shape(shape), tuning.for_shape(shape)
    if not tuning.trials:
        return as_given
    model, training = resolve_settings(
        model, training, shape, len(split.train)
    )  # a trial varies the resolved settings
    judged = judged_rows(rows, split, shape)
    tried: TrainingConfig | None = None
    if by_shape and model.wide:
        progress("finding what the network adds to the linear path and the trees")
        chosen = _chosen(judged[0], shape, spec, model, training)
        if chosen is not None and not chosen.combination.deep:
            progress("the network adds nothing here, so no trial runs; set tuning.trials to run some")
            return as_given
        tried = _with_epochs_of(chosen, training)
    digested = rows.iloc[split.train], rows.iloc[split.inner_validation]
    name = study_name(tuning, *digested, spec, one_member(model), training)
    with storage_errors(tuning.storage):
        storage = open_storage(tuning)
        study = open_study(storage, name)
        if not study.get_trials(deepcopy=False):
            enqueue_starts(study, storage, tuning, model, training)
        before = finished(study)
        if tried is None and before < tuning.trials and training.epochs is None:
            # once, not in every trial, since the search takes several fits
            progress("finding the number of epochs")
            tried = _with_epochs_of(_chosen(judged[0], shape, spec, model, training), training)
        tried = tried or training

        def maintain() -> None:
            refill_queue(study, tuning.trials)

        def report(result: str) -> None:
            progress(f"trial {finished(study)} of {tuning.trials}: {result}")

        maintain()
        if tuning.workers == 1 or tuning.trials - before < 2:
            objective = Objective(*judged, shape, spec, model, tried, tuning, files.trial_artifacts)

            def report_trial(trial: FrozenTrial) -> None:
                report(outcome(trial))

            run_slots(
                study, storage, objective, tuning, training.seed, tuning.timeout_s, report_trial, maintain
            )
        else:
            job = _job(files.training_set, shape, spec, model, tried, tuning, name, files.trial_artifacts)
            number = min(tuning.workers, tuning.trials - before)
            progress(f"starting {number} workers")
            with Workers(number, job, tuning.timeout_s) as workers:
                workers.wait(lambda: finished(study), tuning.trials, maintain, report)
    return _best(study, tuning, model, training)


def _chosen(
    rows: pd.DataFrame, shape: Shape, spec: FeaturesConfig, model: ModelConfig, training: TrainingConfig
) -> StackingChoice | None:
    """The choice by the rows for one member with the given configs."""
    with prepared(training):
        return assemble(rows, None, spec, one_member(model), training, shape).chosen


def _with_epochs_of(chosen: StackingChoice | None, training: TrainingConfig) -> TrainingConfig:
    return training if chosen is None else training.model_copy(update={"epochs": chosen.epochs})


def _job(
    rows: Path,
    shape: Shape,
    spec: FeaturesConfig,
    model: ModelConfig,
    training: TrainingConfig,
    tuning: TuningConfig,
    study: str,
    artifacts: Path,
) -> dict[str, Any]:
    configs = {"spec": spec, "model": model, "training": training, "tuning": tuning}
    return {
        **{name: config.model_dump(mode="json") for name, config in configs.items()},
        "rows": str(rows.absolute()),
        "shape": shape,
        "study": study,
        "artifacts": str(artifacts.absolute()),
    }


def _best(study: optuna.Study, tuning: TuningConfig, model: ModelConfig, training: TrainingConfig) -> Tuned:
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        why = (
            "every trial diverged: narrow tuning.space"
            if finished(study)
            else "no trial was completed; raise tuning.timeout_s or tuning.trials"
        )
        raise TrainingError(f"study {study.study_name}: {why}")
    best = {key: decoded(tuning.space[key], value) for key, value in study.best_params.items()}
    return Tuned(*apply(best, model, training), study.study_name, finished(study), best, study.best_value)
