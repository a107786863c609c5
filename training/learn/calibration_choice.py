"""Chooses whether Platt scaling is added to the program, by rows that it was not fitted to."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit

from features.spec import FeaturesConfig
from model.calibration import Calibration
from training.learn.fit import fit
from training.learn.forward import Fold, origins
from training.learn.metrics import log_loss
from training.learn.resolved import FitSettings
from training.learn.split import Split

LEAST_SHARE = 0.2
"""Least share of the training rows before the older validation snapshot. Two parameters need fewer rows
than the choice of paths."""

Labels = NDArray[np.int64]
Logits = NDArray[np.float64]


def choose_calibration(
    rows: pd.DataFrame,
    split: Split,
    settings: FitSettings,
    progress: Callable[[str], None],
) -> Calibration:
    """`training.calibration: auto`: Platt scaling (Platt, 1999) where it lowers log-loss; else the identity.

    The logits are those of all members, averaged and stacked as in the packaged program, from a fit to rows
    before the validation snapshot. For a log, the scaling of an older validation snapshot has to lower the
    log-loss of the newest one; each is a horizon after the rows of its fit. Then the scaling of the newest
    one is taken. A log with one origin gets the identity. For a table, the scaling of one half of the
    validation rows has to lower the log-loss of the other half.
    """
    if settings.training.calibration == "none":
        return Calibration()
    progress("choosing the calibration")

    def scored(fold: Fold) -> tuple[Logits, Labels]:
        learned, judged = (rows.iloc[part] for part in fold)
        scores = fit(learned, None, settings).score(judged)
        return logit(np.clip(scores, 1e-12, 1 - 1e-12)), judged["churned"].to_numpy(dtype=np.int64)

    if settings.shape == "transactions":
        folds = _forward(rows, split, settings.spec)
        if len(folds) < 2:
            return Calibration()
        newest, older = (scored(fold) for fold in folds)
        return platt_if_better(older, newest, newest)
    logits, churned = scored((split.inner_train, split.inner_validation))
    learns = np.random.default_rng(settings.training.seed).random(len(churned)) < 0.5
    learned, judged = ((logits[half], churned[half]) for half in (learns, ~learns))
    return platt_if_better(learned, judged, (logits, churned))


def platt_if_better(
    learned: tuple[Logits, Labels], judged: tuple[Logits, Labels], final: tuple[Logits, Labels]
) -> Calibration:
    """Platt scaling of `final` where that of `learned` lowers the log-loss of `judged`; else the identity."""
    found, (logits, churned) = Calibration.platt(*learned), judged
    before = log_loss(churned, expit(logits))
    after = log_loss(churned, expit(float(found.slope) * logits + float(found.shift)))
    return Calibration.platt(*final) if after < before else Calibration()


def _forward(rows: pd.DataFrame, split: Split, spec: FeaturesConfig) -> list[Fold]:
    train = rows.iloc[split.train]
    folds = origins(train["event_timestamp"], train["churned"].to_numpy(), spec.horizon, 2, LEAST_SHARE)
    return [(split.train[learned], split.train[judged]) for learned, judged in folds]
