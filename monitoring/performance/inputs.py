"""What the performance of a model is measured from: predictions, activity of customers, and a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pandas as pd

from features.spec import FeaturesConfig
from training.config import DecisionConfig

FEATURE = "feature_"
"""Prefix of the model's inputs in the prediction log (handlers/records/record.py)."""

Relation = Any
"""Rows that DuckDB can scan: a DataFrame, a pyarrow Table, or a pyarrow Dataset that does not fit in memory.
"""


@dataclass(frozen=True)
class PerformanceInputs:
    """The rows of one run. Rows that became known at or after `at` are not used, even if they are given."""

    at: datetime
    """The time of the check, UTC."""
    predictions: Relation
    """Columns of the prediction log: user_id, features_at, model_version, score, and feature_<name> for each
    input of the model. `status` and `overridden` are optional: cold starts and what-if questions are left
    out. One row a prediction; repeated predictions of a customer from the same features count once."""
    activity: Relation
    """user_id and timestamp (UTC) of each row of the records that shows that a customer has not churned:
    purchases, and returns if `returns_count_as_life` is true."""
    known_until: datetime
    """The time up to which `activity` is complete, at most `at`."""
    version: str
    """The champion: the model version that serves at `at`."""
    spec: FeaturesConfig
    decision: DecisionConfig
    trained_until: Mapping[str, datetime] = field(default_factory=dict)
    """Model version -> the end of the horizon of its newest training rows. Predictions for earlier moments
    may be those of training rows, so no calibration is fitted to them."""
    history: pd.DataFrame | None = None
    """`performance_steps` of the run before (monitoring/performance/history.py); None in the first run."""


def log_rows(scored: pd.DataFrame, inputs: tuple[str, ...]) -> pd.DataFrame:
    """Rows of the prediction log from a frame with user_id, event_timestamp, version, score and `inputs`."""
    names = {"event_timestamp": "features_at", "version": "model_version"}
    wanted = ["user_id", "event_timestamp", "version", "score", *inputs]
    return scored[wanted].rename(columns=names | {name: FEATURE + name for name in inputs})
