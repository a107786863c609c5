"""Opens a study, enqueues its first points, and runs the loop of every worker."""

import hashlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import optuna
import pandas as pd
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from training.config import Range, TuningConfig
from training.learn.resolved import FitSettings
from training.tuning.slots import FINISHED, claim, finished, open_storage, run_trial, storage_errors
from training.tuning.space import point_of_configs
from training.tuning.trial_code import code_of_a_trial

IDLE_S = 0.5
AS_GIVEN = "as_given"
"""User attribute of the trial that runs the configs unchanged, if they are outside of the space."""
ENOUGH_FOR_IMPORTANCE = 5
FIRST_DRAWS = 4
"""Trials drawn at random before TPE models them. Optuna's default of 10 would be a third of a study."""


def open_study(storage: RDBStorage, name: str) -> optuna.Study:
    """The study `name`, created if it does not exist; trials worse than the median are pruned."""
    return optuna.create_study(
        storage=storage,
        study_name=name,
        direction="minimize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1),
    )


@dataclass(frozen=True)
class StudyQueue:
    """A study, the database with its slots, and how many trials are wanted."""

    study: optuna.Study
    storage: RDBStorage
    tuning: TuningConfig
    seed: int

    @classmethod
    def open(cls, storage: RDBStorage, name: str, tuning: TuningConfig, seed: int) -> Self:
        """The study `name`, which is created if it does not exist."""
        return cls(open_study(storage, name), storage, tuning, seed)


def run_slots(
    queue: StudyQueue,
    objective: Callable[[optuna.Trial], float],
    timeout_s: float | None,
    report: Callable[[FrozenTrial], None],
    idle: Callable[[], None] = lambda: None,
) -> None:
    """Runs slots until `tuning.trials` are finished. After `timeout_s` no trial starts, unless none is
    finished yet, since a study needs at least one result.

    The draws of a trial depend on the queue's seed, its number and the trials before it, not on the process,
    so an interrupted study continues without a difference. If no slot is free, `idle` is called and the loop
    waits, since the slot of a worker that dies becomes free again. `report` is called with each trial that
    ended.
    """
    study, storage, tuning = queue.study, queue.storage, queue.tuning
    deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s
    while (done := finished(study)) < tuning.trials and (not done or time.monotonic() < deadline):
        slot = claim(study, storage, tuning.trials)
        if slot is None:
            idle()
            time.sleep(IDLE_S)
            continue
        study.sampler = optuna.samplers.TPESampler(
            seed=(queue.seed + slot.number) % 2**32, n_startup_trials=FIRST_DRAWS
        )
        report(run_trial(study, storage, slot, objective))


def enqueue_starts(queue: StudyQueue, settings: FitSettings) -> None:
    """Enqueues the settings as given, so that tuning never ends below them; then the last study's best.

    If the settings are outside of the space, their trial has no parameters and the attribute AS_GIVEN.
    """
    study, tuning = queue.study, queue.tuning
    configs = point_of_configs(tuning.space, settings)
    last = _last_best(queue.storage, tuning, study.study_name)
    if tuning.trials:
        mark = {AS_GIVEN: True} if configs is None else None
        study.enqueue_trial(configs or {}, user_attrs=mark)
    if tuning.trials > 1 and last and last != configs:
        study.enqueue_trial(last)


def _last_best(storage: RDBStorage, tuning: TuningConfig, name: str) -> dict[str, Any]:
    """The best point of the newest other study of this name, without settings that left the space.

    New rows are a new study, and the best point of the study of the earlier rows is a good start for it.
    """
    ours = re.compile(rf"{re.escape(tuning.study)}-[0-9a-f]{{8}}")
    earlier = [
        (summary.datetime_start, summary.best_trial.params)
        for summary in optuna.get_all_study_summaries(storage)
        if ours.fullmatch(summary.study_name)
        and summary.study_name != name
        and summary.datetime_start is not None
        and summary.best_trial is not None
    ]
    if not earlier:
        return {}
    _, params = max(earlier, key=lambda study: study[0])
    return {k: v for k, v in params.items() if k in tuning.space and _contains(tuning.space[k], v)}


def _contains(within: Range, value: Any) -> bool:
    if within.choices is not None:
        return value in [json.dumps(choice) for choice in within.choices]
    if within.low is None or within.high is None or isinstance(value, str):
        return False
    return within.low <= value <= within.high and (not within.integer or value == int(value))


def study_name(
    tuning: TuningConfig, train: pd.DataFrame, validation: pd.DataFrame, settings: FitSettings
) -> str:
    """The configured name with a digest of the rows, of the settings that are not searched, and of the code
    of a trial: trials of other data or other code do not belong to this study.
    """
    spec = settings.spec
    columns = (*spec.numeric, *spec.categorical, "churned", "user_id", "event_timestamp")
    digest = hashlib.sha256()
    for rows in (train, validation):
        digest.update(pd.util.hash_pandas_object(rows[list(columns)], index=False).to_numpy().tobytes())
    searched = {key: within.model_dump(mode="json") for key, within in tuning.space.items()}
    elsewhere = {
        "tracking_uri",
        "artifacts_uri",
        "experiment",
        "model_name",
        "baselines",
        "threshold",
        "calibration",
        "cross_validation",
    }
    model, training = settings.model.model_dump(mode="json"), settings.training
    fixed = [model, training.model_dump(mode="json", exclude=elsewhere), searched]
    digest.update(json.dumps(fixed, sort_keys=True).encode())
    digest.update(code_of_a_trial().encode())
    return f"{tuning.study}-{digest.hexdigest()[:8]}"


@dataclass(frozen=True)
class Summary:
    """A study in a report."""

    name: str
    trials: list[FrozenTrial]
    """The finished trials in their order."""
    importances: dict[str, float]
    """Parameter -> its share of the variance of log-loss among the better trials, largest first (PED-ANOVA,
    Watanabe, Bansal, Hutter 2023); empty if too few trials are complete."""


def summarise(name: str, tuning: TuningConfig) -> Summary:
    """Reads the study `name`. Raises TrainingError if its database cannot be read."""
    with storage_errors(tuning.storage):
        study = optuna.load_study(study_name=name, storage=open_storage(tuning))
        trials = study.get_trials(deepcopy=False, states=FINISHED)
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        varied = len({trial.value for trial in complete}) > 1
        # PED-ANOVA uses the better tenth of the trials, and needs two of them
        enough = len(complete) >= ENOUGH_FOR_IMPORTANCE and varied
        # a trial of the configs as given has no parameters
        shared = sorted(set.intersection(*(set(t.params) for t in complete if t.params))) if enough else []
        enough = enough and bool(shared)
        found = optuna.importance.get_param_importances(study, params=shared) if enough else {}
    return Summary(name, trials, {key: float(value) for key, value in found.items()})


def outcome(trial: FrozenTrial) -> str:
    """The result of a trial, for a person who waits."""
    if trial.state == TrialState.COMPLETE:
        return f"log-loss {trial.value:.4f}"
    return "pruned" if trial.state == TrialState.PRUNED else "given to another worker"
