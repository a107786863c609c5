"""Reads what distributions are compared with: the training rows, and the snapshot of the same season."""

from collections.abc import Iterator, Sequence

import pandas as pd

from monitoring.checks.distributions import COLUMNS, Sample, count
from monitoring.config import MonitoringConfig
from monitoring.predictions import Predictions
from monitoring.sources import Sources

SEASON = pd.Timedelta(days=365)
"""Age of the snapshot of the same season."""

NEAR = pd.Timedelta(days=16)
"""How far a snapshot may be from the same season: half of the longest month."""


def compare_distributions(
    sources: Sources,
    newest: pd.DataFrame | None,
    moments: Sequence[pd.Timestamp],
    predictions: Predictions | None,
    config: MonitoringConfig,
) -> pd.DataFrame:
    """The counts that monitoring/checks/distributions.py judges.

    Features are those of the snapshot `newest`, scores those of the predictions in the window, and labels the
    newest ones whose horizon has passed.
    """
    if newest is None:
        return pd.DataFrame(columns=COLUMNS)
    tables = [*_features(sources, newest, moments, config), *_scores(sources, newest, predictions, config),
              *_labels(sources, moments, config)]  # fmt: skip
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=COLUMNS)


def _features(
    sources: Sources, newest: pd.DataFrame, moments: Sequence[pd.Timestamp], config: MonitoringConfig
) -> Iterator[pd.DataFrame]:
    tenure, used = config.drift.tenure, sources.used
    window = Sample.of(newest, used, tenure)
    training = sources.training_rows()
    if training is not None:
        yield count(Sample.of(training, used, tenure), window, "training")
    season = moments[-1] - SEASON
    nearest = min(moments, key=lambda moment: abs(season - moment))
    if abs(season - nearest) <= NEAR:
        yield count(Sample.of(sources.snapshot(nearest), used, tenure), window, "season")


def _scores(
    sources: Sources, newest: pd.DataFrame, predictions: Predictions | None, config: MonitoringConfig
) -> Iterator[pd.DataFrame]:
    reference = sources.scores()
    if predictions is not None and reference is not None:
        window = predictions.scores().join(newest, how="inner")
        names, tenure = ["score"], config.drift.tenure
        yield count(Sample.of(reference, names, tenure), Sample.of(window, names, tenure), "training")


def _labels(
    sources: Sources, moments: Sequence[pd.Timestamp], config: MonitoringConfig
) -> Iterator[pd.DataFrame]:
    window, training = sources.labelled(moments), sources.training_rows()
    if window is None or training is None:
        return
    before = training[training["event_timestamp"] < window["event_timestamp"].max()]
    names, tenure = ["churned"], config.drift.tenure
    yield count(Sample.of(before, names, tenure), Sample.of(window, names, tenure), "training")
