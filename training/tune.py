"""The study: Optuna looks for the settings of least log-loss on the inner validation rows."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optuna
import pandas as pd
import pytorch_lightning as pl
from optuna.trial import TrialState

from data.errors import TrainingError
from features.spec import FeaturesConfig
from model.config import ModelConfig
from training.config import TrainingConfig, TuningConfig
from training.fit import fit
from training.metrics import log_loss
from training.module import VALIDATION_LOSS
from training.quiet import quiet
from training.space import apply, given, plain, suggest
from training.split import Shape
from training.train import prepare

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


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
    progress: Callable[[str], None] = lambda message: None,
) -> Tuned:
    """Bring the study to `tuning.trials` finished trials and apply its best to copies of the configs.

    The test rows take no part. A trial is one member. The first trial is the configs as given, so that
    tuning never ends below them on the validation rows. The study's name carries a digest of the rows and
    of all that is not searched: trials of other data do not count towards this one.
    Raises ConfigError that names a dimension which is not a setting.
    """
    rows, split = prepare(data, shape, spec, training)
    if not tuning.trials:
        return Tuned(model, training, "", 0, {}, float("nan"))
    inner_train, validation = rows.iloc[split.inner_train], rows.iloc[split.inner_validation]
    churned = validation["churned"].to_numpy()
    single = model.model_copy(update={"seeds": model.seeds[:1]})

    def objective(trial: optuna.Trial) -> float:
        chosen = {key: suggest(trial, key, tuning.space[key]) for key in tuning.space}
        trial_model, trial_training = apply(chosen, single, training)
        fitted = fit(inner_train, validation, spec, trial_model, trial_training, callbacks=[Prune(trial)])
        return log_loss(churned, fitted.score(validation))

    def told(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        outcome = f"log-loss {trial.value:.4f}" if trial.state == TrialState.COMPLETE else "pruned"
        progress(
            f"trial {len(study.get_trials(deepcopy=False, states=FINISHED))} of {tuning.trials}: {outcome}"
        )

    with quiet():
        study = _open_study(
            tuning, training, _fingerprint(inner_train, validation, spec, single, training, tuning)
        )
        if not study.trials and (start := given(tuning.space, model, training)):
            study.enqueue_trial(start)
        missing = tuning.trials - len(study.get_trials(deepcopy=False, states=FINISHED))
        if missing > 0:
            study.optimize(objective, n_trials=missing, timeout=tuning.timeout_s, callbacks=[told])
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        raise TrainingError(
            f"study {study.study_name}: no trial was completed; raise tuning.timeout_s or tuning.trials"
        )
    best = {key: plain(tuning.space[key], value) for key, value in study.best_params.items()}
    finished = len(study.get_trials(deepcopy=False, states=FINISHED))
    return Tuned(*apply(best, model, training), study.study_name, finished, best, study.best_value)


class Prune(pl.Callback):
    """Gives up a trial whose validation log-loss lags behind the median after an epoch.

    Optuna's own callback imports `lightning`, which is not `pytorch_lightning`.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._trial.report(float(trainer.callback_metrics[VALIDATION_LOSS]), trainer.current_epoch)
        if self._trial.should_prune():
            raise optuna.TrialPruned


def _open_study(tuning: TuningConfig, training: TrainingConfig, digest: str) -> optuna.Study:
    # creating the tables first and alone: two processes that do it together make one of them fail
    storage = optuna.storages.RDBStorage(tuning.storage, engine_kwargs=_engine(tuning.storage))
    name = f"{tuning.study}-{digest}"
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction="minimize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1),
    )
    # a resumed study draws on from another seed, or it would repeat its own first points
    seed = training.seed + len(study.trials)
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=4)
    return study


def _engine(storage: str) -> dict[str, Any]:
    return {"connect_args": {"timeout": 60}} if storage.startswith("sqlite") else {}


def _fingerprint(
    train: pd.DataFrame,
    validation: pd.DataFrame,
    spec: FeaturesConfig,
    model: ModelConfig,
    training: TrainingConfig,
    tuning: TuningConfig,
) -> str:
    keep = (*spec.numeric, *spec.categorical, "churned", "user_id", "event_timestamp")
    digest = hashlib.sha256()
    for rows in (train, validation):
        digest.update(pd.util.hash_pandas_object(rows[list(keep)], index=False).to_numpy().tobytes())
    searched = {key: within.model_dump(mode="json") for key, within in tuning.space.items()}
    elsewhere = {
        "tracking_uri",
        "artifacts_uri",
        "experiment",
        "model_name",
        "baselines",
        "threshold",
        "calibration",
    }
    fixed = [model.model_dump(mode="json"), training.model_dump(mode="json", exclude=elsewhere), searched]
    digest.update(json.dumps(fixed, sort_keys=True).encode())
    return digest.hexdigest()[:8]
