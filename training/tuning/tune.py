"""The study: Optuna looks for the settings of least log-loss on rows that did not teach."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from data.errors import TrainingError
from data.workspace import Workspace
from features.spec import FeaturesConfig
from model.config import ModelConfig
from training.config import TrainingConfig, TuningConfig
from training.learn.fit import assemble, prepared
from training.learn.recipe import settle
from training.learn.split import Shape
from training.learn.stacking import Chosen
from training.train import prepare
from training.tuning.slots import finished, keep_filled, open_storage, reaching_studies
from training.tuning.space import apply, plain
from training.tuning.study import enqueue_starts, open_study, outcome, study_name, work
from training.tuning.trial import Objective, judged_rows, one_member
from training.tuning.workers import Workers


@dataclass(frozen=True)
class Tuned:
    """The configs with the best parameters in them, and where those came from."""

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
    """Bring the study to exactly `tuning.trials` finished trials and apply its best to copies of the configs.

    `data` is what `files.training_set` holds, which each of several workers reads for itself. The test rows
    take no part. A trial is one member. The first trial is the configs exactly as given, whatever the space
    says, so that tuning never ends below them on the rows that judge; the second is the best of the last
    study of this name, if there was one. Whatever dies, finished trials stay, and the same call goes on from
    them. Call it once at a time.
    No trial runs for a table on which the network adds nothing to line and trees, unless `tuning.trials` was
    given: the space is about the network.
    Raises ConfigError that names a dimension which is not a setting.
    """
    rows, split = prepare(data, shape, spec, training)
    as_given = Tuned(model, training, "", 0, {}, float("nan"))
    by_shape, tuning = tuning.follows(shape), tuning.for_shape(shape)
    if not tuning.trials:
        return as_given
    model, training = settle(model, training, shape, len(split.train))  # a trial varies the recipe
    judged = judged_rows(rows, split, shape)
    tried: TrainingConfig | None = None
    if by_shape and model.wide:
        progress("finding what the network adds to line and trees")
        chosen = _chosen(judged[0], shape, spec, model, training)
        if chosen is not None and not chosen.combination.deep:
            progress("the network adds nothing here, so no trial runs; training.tuning.trials asks for some")
            return as_given
        tried = _with_epochs_of(chosen, training)
    digested = rows.iloc[split.train], rows.iloc[split.inner_validation]
    name = study_name(tuning, *digested, spec, one_member(model), training)
    with reaching_studies(tuning.storage):
        storage = open_storage(tuning)
        study = open_study(storage, name)
        if not study.get_trials(deepcopy=False):
            enqueue_starts(study, storage, tuning, model, training)
        before = finished(study)
        if tried is None and before < tuning.trials and training.epochs is None:
            # once, not by every trial: the search costs several fits
            progress("finding the number of epochs")
            tried = _with_epochs_of(_chosen(judged[0], shape, spec, model, training), training)
        tried = tried or training

        def tend() -> None:
            keep_filled(study, tuning.trials)

        def told(said: str) -> None:
            progress(f"trial {finished(study)} of {tuning.trials}: {said}")

        tend()
        if tuning.workers == 1 or tuning.trials - before < 2:
            objective = Objective(*judged, shape, spec, model, tried, tuning, files.trial_artifacts)

            def told_trial(trial: FrozenTrial) -> None:
                told(outcome(trial))

            work(study, storage, objective, tuning, training.seed, tuning.timeout_s, told_trial, tend)
        else:
            job = _job(files.training_set, shape, spec, model, tried, tuning, name, files.trial_artifacts)
            number = min(tuning.workers, tuning.trials - before)
            progress(f"starting {number} workers")
            with Workers(number, job, tuning.timeout_s) as workers:
                workers.wait(lambda: finished(study), tuning.trials, tend, told)
    return _best(study, tuning, model, training)


def _chosen(
    rows: pd.DataFrame, shape: Shape, spec: FeaturesConfig, model: ModelConfig, training: TrainingConfig
) -> Chosen | None:
    """What the rows choose for one member of the configs as given."""
    with prepared(training):
        return assemble(rows, None, spec, one_member(model), training, shape).chosen


def _with_epochs_of(chosen: Chosen | None, training: TrainingConfig) -> TrainingConfig:
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
    best = {key: plain(tuning.space[key], value) for key, value in study.best_params.items()}
    return Tuned(*apply(best, model, training), study.study_name, finished(study), best, study.best_value)
