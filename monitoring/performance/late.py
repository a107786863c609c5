"""Performance on labels whose horizon has passed, for each model version and segment."""

from collections.abc import Iterator
from datetime import timedelta

import duckdb

from features.reads import quoted
from monitoring.config import MonitoringConfig
from monitoring.findings import Measurement
from monitoring.performance.inputs import PerformanceInputs
from monitoring.performance.intervals import METRICS, UNDEFINED, Estimate, measured
from monitoring.performance.labelled import Labelled, labelled
from monitoring.performance.scored import inputs_of, matured_until, versions
from training.config import ValueColumn

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
    valued = value.column if isinstance(value, ValueColumn) else None
    segments = [name for name in config.segments if name in inputs_of(inputs)]
    found: list[Measurement] = []
    for version in versions(connection, after, matured_until(inputs)):
        rows = labelled(connection, inputs, version, after, segments, valued)
        for subject, condition, values in _parts(rows, segments):
            total = rows.total(condition, values)
            if total.rows >= config.min_rows:
                batches = rows.by_score(condition, values)
                metrics = measured(batches, total, inputs.decision, only_present=subject != ALL)
            else:
                metrics = dict.fromkeys(METRICS, UNDEFINED)
            found += [
                _measurement(f"late_{name}", subject, version, total.rows, one)
                for name, one in metrics.items()
            ]
    return found


def _parts(rows: Labelled, segments: list[str]) -> Iterator[tuple[str, str, list[object]]]:
    """Name of each part, the SQL condition of its rows, and the values of the condition."""
    yield ALL, "true", []
    for name in segments:
        for value in rows.values(name, MOST_VALUES):
            yield f"{name}={value}", f"{quoted(name)} = ?", [value]


def _measurement(name: str, subject: str, version: str, rows: int, one: Estimate) -> Measurement:
    known = one.value == one.value  # not NaN
    return Measurement(
        name, one.value, rows, subject, version, one.low if known else None, one.high if known else None
    )
