"""Computes the loss matrix of a real log: a fresh model for each moment, evaluated at all later ones.

The result is stored under a digest of everything that it depends on, so it is computed once. A model of
moment s is fitted to the snapshots whose horizon had passed at s, and nothing else.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.errors import ReplayError
from core.workspace import Workspace
from features.build import build_features, read_feature_manifest
from features.spec import FeaturesConfig
from monitoring.drift import drift_over_time
from pipelines.code import ROOT
from replay.losses import LossMatrix, stacked
from training.evaluate.baselines import Task, logistic_regression
from training.learn.fit import fit
from training.learn.inputs import Inputs
from training.learn.metrics import log_losses
from training.learn.resolved import FitSettings

Scores = NDArray[np.float64]
Learner = Callable[[pd.DataFrame, pd.DataFrame], Scores]
"""Fits to the first rows and returns churn probabilities of the second."""

ROOMS = ("model", "training", "features", "replay")
"""Packages whose code determines the matrix."""


@dataclass(frozen=True)
class Plan:
    """The moments of a study."""

    first: datetime
    """The first training."""
    step: timedelta
    earliest: datetime
    """The first snapshot that models are trained on."""
    window_steps: int | None = None
    """A model is trained on so many newest known snapshots; None: on all."""

    def moments(self, end: datetime, horizon: timedelta) -> tuple[datetime, ...]:
        """[T]: from `first` on, as long as outcomes are known at `end`."""
        count = (end - horizon - self.first) // self.step + 1
        if count < 3:
            raise ReplayError(
                f"a study from {self.first:%Y-%m-%d} has {max(count, 0)} moments with known outcomes;"
                " take an earlier one or a shorter step"
            )
        return tuple(self.first + self.step * number for number in range(count))

    def snapshots(self, moments: Sequence[datetime]) -> tuple[datetime, ...]:
        """The moments, and those before the first one that models are trained on."""
        before = (self.first - self.earliest) // self.step
        return (*(self.first - self.step * number for number in range(before, 0, -1)), *moments)


def loss_matrix(
    settings: FitSettings,
    files: Workspace,
    plan: Plan,
    learner: str,
    store: Path,
    progress: Callable[[str], None] = lambda message: None,
) -> LossMatrix:
    """The matrix of the records in `files`, whose features are built anew; from the folder `store` if it was
    computed before. `learner`: `logistic_regression`, or `network` with the settings of the fit.
    """
    manifest = json.loads(files.manifest.read_text(encoding="utf-8"))
    file = store / f"{_digest(settings, manifest['output_sha256'], plan, learner)}.npz"
    if file.is_file():
        return LossMatrix.load(file)
    spec = settings.spec
    moments = plan.moments(datetime.fromisoformat(manifest["window"]["end"]), spec.horizon)
    build_features(spec, files, plan.snapshots(moments), progress)
    matrix = computed(labelled_rows(spec, files), spec, moments, plan, _learner(settings, learner), progress)
    matrix = LossMatrix(matrix.moments, matrix.losses, _drift(spec, files, moments), matrix.label_lag)
    matrix.save(file)
    return matrix


def computed(
    rows: pd.DataFrame,
    spec: FeaturesConfig,
    moments: Sequence[datetime],
    plan: Plan,
    learn: Learner,
    progress: Callable[[str], None] = lambda message: None,
) -> LossMatrix:
    """The matrix from rows (user_id, event_timestamp, churned, inputs), without drift."""
    users, known_users = pd.factorize(rows["user_id"], sort=True)
    at = {moment: np.flatnonzero(rows["event_timestamp"] == moment) for moment in moments}
    losses: list[list[NDArray[np.float32]]] = []
    for number, moment in enumerate(moments):
        progress(f"model {number + 1} of {len(moments)}")
        train = rows[training_rows(rows["event_timestamp"], moment, spec.horizon, plan)]
        if train["churned"].nunique() < 2:
            raise ReplayError(
                f"study: at {moment:%Y-%m-%d} there are no known outcomes of both kinds to train on; begin"
                f" {spec.horizon_days} days after the first snapshot, or later"
            )
        later = np.concatenate([at[one] for one in moments[number:]])
        found = log_losses(rows["churned"].to_numpy()[later], learn(train, rows.iloc[later]))
        losses.append(_by_moment(found, [at[one] for one in moments[number:]], users, len(known_users)))
    lag = -(-spec.horizon // plan.step)
    size = len(moments)
    return LossMatrix(tuple(moments), stacked(losses), np.where(np.tri(size, dtype=bool).T, 0.0, np.nan), lag)


def training_rows(
    times: "pd.Series[pd.Timestamp]", now: datetime, horizon: timedelta, plan: Plan
) -> NDArray[np.bool_]:
    """Whether each row may be used for a model at `now`: its horizon has passed, and it is in the window."""
    known = (times + horizon <= now).to_numpy()
    if plan.window_steps is not None:
        newest = times[known].max()
        known &= (times > newest - plan.step * plan.window_steps).to_numpy()
    return np.asarray(known)


def labelled_rows(spec: FeaturesConfig, files: Workspace) -> pd.DataFrame:
    """The snapshots with their labels and derived inputs, sorted by moment and customer."""
    read_feature_manifest(files)
    keys = ["user_id", "event_timestamp"]
    rows = pd.read_parquet(files.snapshots).merge(pd.read_parquet(files.labels), on=keys, validate="1:1")
    for ratio in spec.derived:
        rows[ratio.name] = rows[ratio.numerator] / np.maximum(rows[ratio.denominator], ratio.floor)
    return rows.sort_values(["event_timestamp", "user_id"], ignore_index=True)


def _learner(settings: FitSettings, name: str) -> Learner:
    spec, seed = settings.spec, settings.training.seed

    def logistic(train: pd.DataFrame, test: pd.DataFrame) -> Scores:
        return logistic_regression(Task(train, test, Inputs.learn(train, spec), spec.horizon, Path(), seed))

    def network(train: pd.DataFrame, test: pd.DataFrame) -> Scores:
        return np.asarray(fit(train, None, settings).score(test))

    learners = {"logistic_regression": logistic, "network": network}
    if name not in learners:
        raise ReplayError(f"learner {name}: unknown; take {' or '.join(learners)}")
    return learners[name]


def _by_moment(
    losses: Scores, places: Sequence[NDArray[np.int64]], users: NDArray[np.int64], customers: int
) -> list[NDArray[np.float32]]:
    found, start = [], 0
    for place in places:
        one = np.full(customers, np.nan, np.float32)
        one[users[place]] = losses[start : start + len(place)]
        found.append(one)
        start += len(place)
    return found


def _drift(spec: FeaturesConfig, files: Workspace, moments: Sequence[datetime]) -> NDArray[np.float64]:
    """[T, T]: the largest index of a feature at t against the newest snapshot with known outcomes at s."""
    snapshots = [pd.Timestamp(one) for one in read_feature_manifest(files)["snapshots"]]
    names = [feature.name for feature in spec.features]
    drift = np.full((len(moments), len(moments)), np.nan)
    for s, moment in enumerate(moments):
        reference = max(one for one in snapshots if one + spec.horizon <= pd.Timestamp(moment))
        worst = drift_over_time(files.snapshots, names, reference).groupby("event_timestamp")["psi"].max()
        drift[s, s:] = [worst[pd.Timestamp(one)] for one in moments[s:]]
    return drift


def _digest(settings: FitSettings, records: str, plan: Plan, learner: str) -> str:
    used = [settings.spec.model_dump(mode="json"), records, str(plan), learner, settings.shape]
    if learner == "network":
        stored = {"tracking_uri", "artifacts_uri", "experiment", "model_name"}
        training = settings.training.model_dump(mode="json", exclude=stored)
        used += [settings.model.model_dump(mode="json"), training]
    digest = hashlib.sha256(json.dumps(used, sort_keys=True, default=str).encode())
    for room in (
        ROOMS if learner == "network" else ("features", "replay/matrix.py", "training/evaluate/baselines.py")
    ):
        for file in sorted((ROOT / room).rglob("*.py")) or [ROOT / room]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:32]
