"""What the monitors measure at a moment of a replay, from what is known then."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.errors import MonitoringError
from core.workspace import Workspace
from features.spec import FeaturesConfig
from monitoring.drift import drift_over_time
from monitoring.early_labels import Cohort, ReturnCurve, avoidable_loss, level
from replay.matrix import labelled_rows
from replay.outcomes import Activity, churned
from replay.served import Customers, ServedModel
from training.evaluate.baselines import Task, logistic_regression
from training.learn.inputs import Inputs
from training.learn.metrics import log_losses

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answered:
    """The customers of a moment, and how they were served."""

    customers: Customers
    model: ServedModel
    scores: Floats
    before: Floats | None
    """What the model before would have answered; None where there was none."""

    @property
    def moment(self) -> datetime:
        return self.customers.moment


@dataclass(frozen=True)
class Signals:
    """The measurements at a moment. None: it could not be measured."""

    at: datetime
    psi: float | None = None
    """The largest population stability index of an input against the champion's newest training snapshot."""
    psi_feature: str = ""
    matured: datetime | None = None
    """The newest moment whose outcomes are known."""
    matured_program: str = ""
    matured_trained: datetime | None = None
    """When that model was trained."""
    matured_loss: float | None = None
    """Of the model that served then, in nats a customer."""
    level_ratio: float | None = None
    """Returns of the last step over those that the scores promised."""
    early_log_e: float | None = None
    """Log e-value of the last step against "no loss is avoidable" (monitoring/early_labels.py)."""
    early_avoidable: float | None = None
    """Nats a customer that a fresh model would avoid on the last step."""
    avoidable: Floats | None = None
    """[customers] of the newest moment with known outcomes: loss of the model that served minus that of a
    fresh one, in nats. Fresh: a logistic regression on the rows whose outcomes were known at that moment."""
    avoidable_nats: float | None = None
    """The mean of `avoidable`."""
    labels: int = 0
    """Rows with a known outcome."""

    def record(self) -> dict[str, object]:
        """The numbers, for the ledger."""
        return {name: value for name, value in vars(self).items() if name not in ("at", "avoidable")}


def measure(
    at: datetime,
    champion: ServedModel,
    answered: list[Answered],
    activity: Activity,
    spec: FeaturesConfig,
    files: Workspace,
    tolerance: float,
) -> Signals:
    """All measurements at `at`. `answered`: the moments before it, ascending; `activity` ends at `at`."""
    psi, feature = _drift(at, champion, spec, files)
    known = [one for one in answered if one.moment + spec.horizon <= at]
    newest = known[-1] if known else None
    early = _early(at, answered, known, activity, spec, tolerance)
    rows = labelled_rows(spec, files)
    avoidable = None if newest is None else _avoidable(newest, rows, activity, spec)
    return Signals(
        at=at,
        psi=psi,
        psi_feature=feature,
        matured=None if newest is None else newest.moment,
        matured_program="" if newest is None else newest.model.program,
        matured_trained=None if newest is None else newest.model.trained,
        matured_loss=None if newest is None else float(losses(newest, activity, spec.horizon).mean()),
        level_ratio=early.get("level_ratio"),
        early_log_e=early.get("log_e"),
        early_avoidable=early.get("avoidable"),
        avoidable=avoidable,
        avoidable_nats=None if avoidable is None else float(avoidable.mean()),
        labels=len(rows),
    )


def losses(one: Answered, activity: Activity, horizon: timedelta) -> Floats:
    """Log-loss of each answer, whose outcomes are known."""
    days = activity.return_days(one.customers.users, one.moment)
    return log_losses(churned(days, horizon), one.scores)


def paired_losses(one: Answered, activity: Activity, horizon: timedelta) -> Floats:
    """Log-loss of each answer minus that of the model before."""
    assert one.before is not None
    outcome = churned(activity.return_days(one.customers.users, one.moment), horizon)
    return log_losses(outcome, one.scores) - log_losses(outcome, one.before)


def _avoidable(one: Answered, rows: pd.DataFrame, activity: Activity, spec: FeaturesConfig) -> Floats | None:
    """None where no outcome was known at that moment, or all were equal."""
    train = rows[(rows["event_timestamp"] + spec.horizon <= one.moment).to_numpy()]
    if train["churned"].nunique() < 2:
        return None
    test = pd.DataFrame({name: one.customers.columns[name] for name in one.model.bundle.inputs})
    task = Task(train, test, Inputs.learn(train, spec), spec.horizon, Path(), seed=0)
    days = activity.return_days(one.customers.users, one.moment)
    fresh = log_losses(churned(days, spec.horizon), logistic_regression(task))
    return losses(one, activity, spec.horizon) - fresh


def _drift(
    at: datetime, champion: ServedModel, spec: FeaturesConfig, files: Workspace
) -> tuple[float | None, str]:
    names = [feature.name for feature in spec.features]
    reference = pd.Timestamp(champion.reference)
    found = drift_over_time(files.snapshots, names, reference)
    now = found[found["event_timestamp"] == pd.Timestamp(at)]
    if now.empty:
        return None, ""
    worst = now.sort_values("psi", kind="stable").iloc[-1]
    return float(worst["psi"]), str(worst["feature"])


def _early(
    at: datetime,
    answered: list[Answered],
    known: list[Answered],
    activity: Activity,
    spec: FeaturesConfig,
    tolerance: float,
) -> dict[str, float]:
    """The last step against the one before; empty where they cannot be compared yet."""
    if len(answered) < 2 or not known:
        return {}
    before, now = answered[-2:]
    days = min(at - now.moment, now.moment - before.moment) / timedelta(days=1)
    try:
        curve = ReturnCurve.fit(_cohort(known[-1], activity), days)
        cohorts = _cohort(before, activity), _cohort(now, activity)
        returns = level(cohorts[1], curve)
        avoidable = avoidable_loss(*cohorts, curve, spec)
    except MonitoringError:
        return {}
    return {
        "level_ratio": returns.ratio,
        "log_e": avoidable.log_e_value(tolerance),
        "avoidable": avoidable.mean,
    }


def _cohort(one: Answered, activity: Activity) -> Cohort:
    customers = one.customers
    inputs = pd.DataFrame({name: customers.columns[name] for name in one.model.bundle.inputs})
    return Cohort(inputs, one.scores, activity.return_days(customers.users, customers.moment))
