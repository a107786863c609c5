"""The purchase process for the network's BG/NBD features, fitted once, to the newest training snapshot.

If it were fitted to each snapshot, the meaning of the features would drift with its parameters.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.errors import TrainingError
from features.spec import FeaturesConfig
from model.config import PurchaseColumns
from model.purchase_process import PurchaseProcess
from training.learn.bg_nbd import BgNbd
from training.learn.resolved import FitSettings

REMEDY = "name another feature, or set model.purchase_process: false"


def learn_process(
    train: pd.DataFrame, numeric: NDArray[np.float64], settings: FitSettings
) -> PurchaseProcess | None:
    """Fits to the training rows and their numbers [B, N]; None if it is switched off or does not apply.

    If `model.purchase_process` is left out, a log has one if its spec holds the columns and its purchases fit
    the model. If it is true, TrainingError is raised with the reason why there can be none.
    """
    configured = settings.model.purchase_process
    if configured is False or (configured is None and settings.shape == "labelled"):
        return None
    try:
        return _learn(train, numeric, settings.spec, settings.model.purchase_columns)
    except TrainingError:
        if configured:
            raise
        return None


def _learn(
    train: pd.DataFrame, numeric: NDArray[np.float64], spec: FeaturesConfig, named: PurchaseColumns
) -> PurchaseProcess:
    columns = []
    for field, name in (
        ("purchase_days", named.purchase_days),
        ("age", named.age),
        ("recency", named.recency),
    ):
        if name not in spec.numeric:
            raise TrainingError(
                f"model.purchase_columns.{field}: {name} is not a numeric feature of the spec; {REMEDY}"
            )
        columns.append(spec.numeric.index(name))
    newest = (train["event_timestamp"] == train["event_timestamp"].max()).to_numpy()
    days, age, since = (numeric[newest][:, columns] * (1.0, named.days_of_age, 1.0)).T
    usable = np.isfinite(days) & np.isfinite(age) & np.isfinite(since) & (days >= 1) & (age >= since)
    if not usable.any():
        raise TrainingError(
            f"model.purchase_columns: no training row of the newest snapshot has {named.purchase_days} of 1 "
            f"or more and {named.age} of {named.recency} or more; {REMEDY}"
        )
    days, age, since = days[usable], age[usable], since[usable]
    found = BgNbd.fit(days - 1, np.where(days > 1, age - since, 0.0), age)
    return PurchaseProcess.fit(
        numeric,
        {"r": found.r, "alpha": found.alpha, "a": found.a, "b": found.b},
        columns,
        (1.0, named.days_of_age, 1.0),
        spec.horizon_days,
    )
