"""Cross-validation: the variation of the metrics over folds, in addition to the one test set.

- Exchangeable rows: cross-validation over all rows of the table. A keyed hash of the customer gives the fold,
  so that more rows move no row to another fold.
- A log, or a table that is split by time: rolling origin (Tashman 2000, Int. J. Forecasting 16). The newest
  block is the test window. Each earlier block is evaluated by a model trained on the rows before it.

The cost is bounded: a fold fits one member instead of all, with the settings that the final fit has chosen,
to at most LEARNED_ROWS rows, and is evaluated on at most JUDGED_ROWS. The settings were chosen on the
training rows, so the folds are slightly too good; a model of one member and fewer rows is slightly worse.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd

from core.errors import TrainingError
from training.config import TrainingConfig
from training.learn.fit import Fitted, fit
from training.learn.metrics import evaluate
from training.learn.split import BY_CUSTOMER, BY_SNAPSHOT, Positions, Split, hashed, newest_share

LEARNED_ROWS = 100_000
JUDGED_ROWS = 100_000
METRICS = ("log_loss", "auroc", "auprc", "brier", "ece")


@dataclass(frozen=True)
class Fold:
    """The metrics of one fold."""

    name: str
    learned_rows: int
    judged_rows: int
    metrics: dict[str, float]
    """METRICS of the evaluated rows."""


@dataclass(frozen=True)
class CrossValidation:
    """The metrics of all folds, with mean and standard deviation."""

    method: str
    """`cross-validation` or `rolling origin`."""
    folds: tuple[Fold, ...]
    seconds: float

    @property
    def mean(self) -> dict[str, float]:
        """Mean of each metric over the folds."""
        return {name: float(np.mean(values)) for name, values in self._values().items()}

    @property
    def spread(self) -> dict[str, float]:
        """Standard deviation over the folds; NaN for one fold."""
        return {
            name: float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
            for name, values in self._values().items()
        }

    def content(self) -> dict[str, Any]:
        """The content of the JSON file; a spread that is NaN is null."""
        spread = {name: value if np.isfinite(value) else None for name, value in self.spread.items()}
        return asdict(self) | {"mean": self.mean, "spread": spread}

    def _values(self) -> dict[str, list[float]]:
        return {name: [fold.metrics[name] for fold in self.folds] for name in METRICS}


def cross_validate(
    rows: pd.DataFrame,
    split: Split,
    fitted: Fitted,
    progress: Callable[[str], None] = lambda message: None,
) -> CrossValidation | None:
    """Evaluates the settings of `fitted` on at most `training.cross_validation` folds of `rows`.

    A fold with a single class is left out. None if it is switched off, or no fold is left.
    """
    spec, training = fitted.settings.spec, fitted.settings.training
    if not training.cross_validation:
        return None
    start = perf_counter()
    method = "cross-validation" if split.rule == BY_CUSTOMER else "rolling origin"
    planned = list(folds_of(rows, split, spec.horizon, training))
    found = []
    for number, (name, learned, judged) in enumerate(planned, start=1):
        progress(f"{method}: {number} of {len(planned)}, {name}")
        fold = _fold(name, rows.iloc[learned], rows.iloc[judged], fitted)
        if fold is not None:
            found.append(fold)
    return CrossValidation(method, tuple(found), perf_counter() - start) if found else None


def folds_of(
    rows: pd.DataFrame, split: Split, horizon: timedelta, training: TrainingConfig
) -> Iterator[tuple[str, Positions, Positions]]:
    """Name, training rows and evaluated rows of each fold, before the numbers of rows are limited."""
    if split.rule == BY_CUSTOMER:
        yield from _by_customer(rows, training)
    elif split.rule == BY_SNAPSHOT:
        yield from _blocks_of_snapshots(rows, horizon, training)
    else:
        yield from _blocks_of_time(rows, training)


def _by_customer(rows: pd.DataFrame, training: TrainingConfig) -> Iterator[tuple[str, Positions, Positions]]:
    count = max(training.cross_validation, 2)
    fold = (hashed(rows["user_id"], training.seed, "fold") * count).astype(np.int64)
    for number in range(count):
        yield f"fold {number + 1}", np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def _blocks_of_snapshots(
    rows: pd.DataFrame, horizon: timedelta, training: TrainingConfig
) -> Iterator[tuple[str, Positions, Positions]]:
    moments = rows["event_timestamp"]
    snapshots = sorted(moments.unique())
    size = training.test_snapshots
    for number in range(training.cross_validation):
        block = snapshots[len(snapshots) - (number + 1) * size : len(snapshots) - number * size]
        if len(block) < size or not (moments <= block[0] - horizon).any():
            return
        learned = np.flatnonzero((moments <= block[0] - horizon).to_numpy())
        yield _between(block[0], block[-1]), learned, np.flatnonzero(moments.isin(block).to_numpy())


def _blocks_of_time(
    rows: pd.DataFrame, training: TrainingConfig
) -> Iterator[tuple[str, Positions, Positions]]:
    """Each block has as many rows as the test window, or more, since moments are not divided."""
    earlier = np.arange(len(rows))
    for _ in range(training.cross_validation):
        share = training.test_share * len(rows) / len(earlier)
        newest = newest_share(rows.iloc[earlier], share) if share < 1 else None
        if newest is None:
            return
        judged, earlier = earlier[newest], earlier[~newest]
        moments = rows["event_timestamp"].iloc[judged]
        yield _between(moments.min(), moments.max()), earlier, judged


def _fold(name: str, learned: pd.DataFrame, judged: pd.DataFrame, fitted: Fitted) -> Fold | None:
    used = fitted.settings
    # null instead of true: fewer rows may not be enough for a purchase process
    process = None if used.model.purchase_process else False
    model = used.model.model_copy(update={"seeds": used.model.seeds[:1], "purchase_process": process})
    seed = used.training.seed
    learned = _of_some_customers(learned, LEARNED_ROWS, seed)
    judged = _of_some_customers(judged, JUDGED_ROWS, seed)
    if learned["churned"].nunique() < 2 or judged["churned"].nunique() < 2:
        return None
    try:
        found = fit(learned, None, replace(used, model=model), chosen=fitted.chosen)
    except TrainingError:  # too few rows for these settings
        return None
    found.program.calibration = fitted.program.calibration
    metrics = evaluate(judged["churned"], found.score(judged), used.training.threshold)
    if not np.isfinite(metrics["log_loss"]):
        return None
    return Fold(name, len(learned), len(judged), {key: metrics[key] for key in METRICS})


def _of_some_customers(rows: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """All rows, or those of customers drawn by a hash, about `most` rows."""
    if len(rows) <= most:
        return rows
    return rows[hashed(rows["user_id"], seed, "cross-validation") < most / len(rows)]


def _between(first: pd.Timestamp, last: pd.Timestamp) -> str:
    return f"{first:%Y-%m-%d}" if first == last else f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
