"""What the customary rules of retraining measure at a moment of a replay, from what is known then."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.workspace import Workspace
from features.spec import FeaturesConfig
from monitoring.drift import drift_over_time
from replay.outcomes import Activity, churned
from replay.served import Customers, ServedModel
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
    """What the customary rules read (replay/triggers.py). None: it could not be measured."""

    at: datetime
    psi: float | None
    """The largest population stability index of an input against the champion's newest training snapshot."""
    psi_feature: str
    matured: datetime | None
    """The newest moment whose outcomes are known."""
    matured_loss: float | None
    """Of the model that served then, in nats a customer."""

    def record(self) -> dict[str, object]:
        """The numbers, for the ledger."""
        return {name: value for name, value in vars(self).items() if name != "at"}


def measure(
    at: datetime,
    champion: ServedModel,
    answered: list[Answered],
    activity: Activity,
    spec: FeaturesConfig,
    files: Workspace,
) -> Signals:
    """All measurements at `at`. `answered`: the moments before it, ascending; `activity` ends at `at`."""
    psi, feature = _drift(at, champion, spec, files)
    known = [one for one in answered if one.moment + spec.horizon <= at]
    if not known:
        return Signals(at, psi, feature, None, None)
    loss = float(losses(known[-1], activity, spec.horizon).mean())
    return Signals(at, psi, feature, known[-1].moment, loss)


def losses(one: Answered, activity: Activity, horizon: timedelta) -> Floats:
    """Log-loss of each answer, whose outcomes are known."""
    days = activity.return_days(one.customers.users, one.moment)
    return log_losses(churned(days, horizon), one.scores)


def paired_losses(one: Answered, activity: Activity, horizon: timedelta) -> Floats:
    """Log-loss of each answer minus that of the model before."""
    assert one.before is not None
    outcome = churned(activity.return_days(one.customers.users, one.moment), horizon)
    return log_losses(outcome, one.scores) - log_losses(outcome, one.before)


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
