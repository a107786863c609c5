"""The performance of the model in production: measurements, and findings of harm."""

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from monitoring.config import MonitoringConfig
from monitoring.findings import Checked, Measurement, Monitored
from monitoring.performance import avoidable
from monitoring.performance.inputs import PerformanceInputs
from monitoring.performance.late import late
from monitoring.performance.scored import opened
from monitoring.performance.unlabelled import graded, unlabelled


def performance(
    inputs: PerformanceInputs, config: MonitoringConfig, earlier: Sequence[Monitored] = ()
) -> Checked:
    """All that is known of the performance at `inputs.at`.

    `earlier`: the runs before, whose evidence is continued. Raises MonitoringError where the prediction log
    or the activity lacks a column.
    """
    return judge_performance(collect_performance(inputs, config, earlier), config)


def collect_performance(
    inputs: PerformanceInputs, config: MonitoringConfig, earlier: Sequence[Monitored] = ()
) -> dict[str, pd.DataFrame]:
    """Small tables without identifiers of customers, from which `judge_performance` derives its result:
    `performance_metrics`, `performance_steps` and `performance_streams`."""
    kinds = avoidable.kinds(inputs, config)
    with opened(inputs) as connection:
        metrics = late(connection, inputs, config)
        checks = avoidable.steps(connection, inputs, config, earlier)
        evidence = avoidable.evidence(checks, {kind.name: kind.streams for kind in kinds})
        metrics += graded(inputs, metrics, earlier, config.every_days)
        metrics += unlabelled(connection, inputs, config, evidence)
    fields = list(Measurement.__dataclass_fields__)
    streams = [{"check": kind.name, "streams": kind.streams} for kind in kinds]
    return {
        "performance_metrics": pd.DataFrame([asdict(one) for one in metrics], columns=fields),
        "performance_steps": checks,
        "performance_streams": pd.DataFrame(streams),
    }


def judge_performance(tables: dict[str, pd.DataFrame], config: MonitoringConfig) -> Checked:
    """The measurements and findings of the tables; a pure function."""
    known = [
        Measurement(
            str(row["name"]), float(row["value"]), int(row["rows"]), str(row["subject"]),
            str(row["version"]), avoidable.finite(row["low"]), avoidable.finite(row["high"]),
        )
        for row in tables["performance_metrics"].to_dict("records")
    ]  # fmt: skip
    streams = dict(
        zip(tables["performance_streams"]["check"], tables["performance_streams"]["streams"], strict=True)
    )
    return Checked(known) + avoidable.judge(tables["performance_steps"], streams, config)
