"""Performance on labels whose horizon has passed, for each model version and segment."""

from collections.abc import Iterator
from datetime import timedelta

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monitoring.config import MonitoringConfig
from monitoring.findings import Measurement
from monitoring.performance.inputs import PerformanceInputs
from monitoring.performance.intervals import METRICS, UNDEFINED, Estimate, Scores, clusters, measured
from monitoring.performance.scored import matured, matured_until, versions
from training.config import ValueColumn
from training.decision_value import customer_values

MOST_VALUES = 20
"""Values of a segment's column that are measured, the most frequent ones. Others are part of `all` only."""

ALL = "all"


def late(
    connection: duckdb.DuckDBPyConnection, inputs: PerformanceInputs, config: MonitoringConfig
) -> list[Measurement]:
    """The metrics of `intervals.METRICS` with the prefix `late_`, of the newest matured predictions.

    These are the predictions for moments in the last `performance.matured_days` before the newest moment
    whose horizon has passed. A metric that is not defined, or of fewer than `min_rows` rows, is NaN.
    """
    after = matured_until(inputs) - timedelta(days=config.performance.matured_days)
    value = inputs.decision.customer_value
    valued = [value.column] if isinstance(value, ValueColumn) else []
    columns = tuple(dict.fromkeys([*config.segments, *valued]))
    columns = tuple(name for name in columns if name in (*inputs.spec.numeric, *inputs.spec.categorical))
    found: list[Measurement] = []
    for version in versions(connection, after, matured_until(inputs)):
        rows = matured(connection, inputs, version, after, columns)
        scores = Scores(
            clusters(rows.pop("customer").to_numpy()),
            rows["score"].to_numpy(dtype=np.float64),
            rows["churned"].to_numpy(dtype=np.int64),
            customer_values(rows, inputs.decision) if valued else None,
        )
        for subject, which in _parts(rows, [name for name in config.segments if name in columns]):
            part = scores if which is None else scores.rows(which)
            enough = len(part.score) >= config.min_rows
            metrics = measured(part, inputs.decision) if enough else dict.fromkeys(METRICS, UNDEFINED)
            found += [
                _measurement(f"late_{name}", subject, version, len(part.score), one)
                for name, one in metrics.items()
            ]
    return found


def _parts(rows: pd.DataFrame, segments: list[str]) -> Iterator[tuple[str, NDArray[np.bool_] | None]]:
    """Name of each part, and which rows it has; None: all."""
    yield ALL, None
    for name in segments:
        column = rows[name]
        for value in column.value_counts().index[:MOST_VALUES]:
            which = (column == value).to_numpy()
            if which.any():
                yield f"{name}={value}", which


def _measurement(name: str, subject: str, version: str, rows: int, one: Estimate) -> Measurement:
    known = np.isfinite(one.value)
    return Measurement(
        name, one.value, rows, subject, version, one.low if known else None, one.high if known else None
    )
