"""The loss that a fresh model would avoid, at each check: on the first weeks of labels, and on matured ones.

A check looks at the customers who were scored at one moment, and whether they returned within a step from
then on. The fresh model and the recalibrated champion are both fitted to an earlier moment whose step had
ended by then (monitoring/early_labels.py). Early labels have steps of `step_days`, one after the other.
Matured labels have steps of the horizon, and a check every `late_days`, so that their steps overlap.

Checks are numbered on a calendar that is the same for every run: a run at any time evaluates the newest step
that has ended, and a repeated run gives the same number again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd

from core.errors import MonitoringError
from monitoring.config import MonitoringConfig
from monitoring.early_labels import Cohort, ReturnCurve, avoidable_loss, level
from monitoring.findings import Cause, Checked, Finding, Measurement, Monitored, Severity
from monitoring.performance.inputs import PerformanceInputs
from monitoring.performance.robust import evidence_of_streams, robust
from monitoring.performance.samples import cohort
from monitoring.performance.scored import inputs_of

CALENDAR = datetime(1970, 1, 5, tzinfo=UTC)
"""Start of step 0: a Monday, 00:00."""

COLUMNS = ("check", "number", "version", "rows", "mean_nats", "base_loss_nats", "log_e", "returned",
           "promised", "level", "level_low", "level_high")  # fmt: skip


@dataclass(frozen=True)
class Steps:
    """One kind of check."""

    name: str
    days: float
    """Length of the step in which returns count."""
    every: float
    """Days between two checks."""

    @property
    def streams(self) -> int:
        """How many checks in a row share a day."""
        return math.ceil(self.days / self.every)

    def number(self, known_until: datetime) -> int:
        """The newest check whose step has ended."""
        return math.floor((known_until - CALENDAR) / timedelta(days=self.every))

    def end(self, number: int) -> datetime:
        """The end of the step of a check."""
        return CALENDAR + number * timedelta(days=self.every)


def kinds(inputs: PerformanceInputs, config: MonitoringConfig) -> tuple[Steps, Steps]:
    """Early and late labels. Early steps are at most as long as the horizon."""
    own = config.performance
    horizon = float(inputs.spec.horizon_days)
    early = min(own.step_days, horizon)
    return Steps("early", early, early), Steps("late", horizon, min(own.late_days, horizon))


def steps(
    connection: duckdb.DuckDBPyConnection,
    inputs: PerformanceInputs,
    config: MonitoringConfig,
    earlier: Sequence[Monitored] = (),
) -> pd.DataFrame:
    """One row with COLUMNS for each check of a champion: those of earlier runs, then the newest.

    `log_e` is NaN for a check with too few customers, or with one outcome only.
    """
    rows = [row for kind in kinds(inputs, config) for row in _before(kind, earlier)]
    rows += [_measure(connection, kind, inputs, config) for kind in kinds(inputs, config)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.drop_duplicates(["check", "number"], keep="last").sort_values(["check", "number"])


def evidence(table: pd.DataFrame, streams: Mapping[str, int]) -> dict[str, float]:
    """Kind of check -> log evidence against the version of its newest check. `table` is that of `steps`.

    The checks of all versions are one history, so that its error rate does not grow with each new model.
    """
    result = {}
    for name, rows in table.groupby("check", sort=True):
        known = rows.dropna(subset=["log_e"])
        mine = known[known["version"] == rows["version"].iloc[-1]]
        history = dict(zip(mine["number"].astype(int), mine["log_e"].astype(float), strict=True))
        others = set(known["number"].astype(int)) - set(history)
        result[str(name)] = evidence_of_streams(history, streams[str(name)], others)
    return result


def judge(table: pd.DataFrame, streams: Mapping[str, int], config: MonitoringConfig) -> Checked:
    """Measurements of the newest check of each kind, and findings of harm. `table` is that of `steps`."""
    checked = Checked()
    known = evidence(table, streams)
    for kind, rows in table.groupby("check", sort=True):
        newest = rows.iloc[-1]
        name, version, count = str(kind), str(newest["version"]), int(newest["rows"])
        found = known[name]

        def of(what: str, value: float, low: float | None = None, high: float | None = None) -> Measurement:
            return Measurement(f"{name}_{what}", float(value), count, "all", version, low, high)  # noqa: B023

        checked += Checked(
            (
                of("avoidable_nats", newest["mean_nats"]),
                of("avoidable_log_e", newest["log_e"]),
                of("avoidable_evidence", found),
                of("check_number", newest["number"]),
                of(
                    "returns_ratio",
                    newest["level"],
                    finite(newest["level_low"]),
                    finite(newest["level_high"]),
                ),
            ),
            (),
        )
        if found >= config.level(_test(name), 1):
            checked += Checked((), (_finding(name, newest, found, config),))
    return checked


def _measure(
    connection: duckdb.DuckDBPyConnection, kind: Steps, inputs: PerformanceInputs, config: MonitoringConfig
) -> dict[str, object]:
    number = kind.number(min(inputs.at, inputs.known_until))
    row: dict[str, object] = dict.fromkeys(COLUMNS, math.nan) | {
        "check": kind.name, "number": number, "version": inputs.version, "rows": 0}  # fmt: skip
    length = timedelta(days=kind.days)
    now = _cohort(connection, inputs, config, kind.end(number) - length, kind.days)
    before = _cohort(connection, inputs, config, kind.end(number) - 2 * length, kind.days)
    row["rows"] = len(now.churn)
    if min(len(now.churn), len(before.churn)) < config.min_rows:
        return row
    curve = _curve(connection, inputs, config, kind, before)
    if curve is None:
        return row
    if curve.probability(now.churn).sum() > 0:
        found = level(now, curve)
        row |= {"returned": found.returned, "promised": found.promised, "level": found.ratio,
                "level_low": found.low, "level_high": found.high}  # fmt: skip
    try:
        loss = avoidable_loss(before, now, curve, inputs.spec)
    except MonitoringError:  # one outcome only: no evidence
        return row
    own = config.performance
    return row | {
        "mean_nats": loss.mean,
        "base_loss_nats": loss.base_loss,
        "log_e": robust(loss.log_e_value(own.tolerance), own.most_nats, own.exceptional),
    }


def _cohort(
    connection: duckdb.DuckDBPyConnection,
    inputs: PerformanceInputs,
    config: MonitoringConfig,
    moment: datetime,
    days: float,
) -> Cohort:
    """Customers scored at or before `moment`, and their returns within `days` after it."""
    frame = cohort(connection, inputs, moment, inputs.spec.ttl_days, config.performance.sample)
    returns = frame["return_days"].to_numpy(dtype=np.float64)
    returns = np.where(returns < days, returns, np.nan)  # what happened later was not known at the end
    return Cohort(frame[list(inputs_of(inputs))], frame["score"].to_numpy(dtype=np.float64), returns)


def _curve(
    connection: duckdb.DuckDBPyConnection,
    inputs: PerformanceInputs,
    config: MonitoringConfig,
    kind: Steps,
    before: Cohort,
) -> ReturnCurve | None:
    """The pace of returns. A full horizon needs none. A version without matured customers gets that of the
    step before, alike for all scores. None where nobody returned."""
    if kind.days >= inputs.spec.horizon_days:
        return ReturnCurve(np.zeros(0), np.ones(1), kind.days)
    horizon = timedelta(days=inputs.spec.horizon_days)
    newest = kind.end(kind.number(min(inputs.at, inputs.known_until) - horizon))
    matured = _cohort(connection, inputs, config, newest, inputs.spec.horizon_days)
    if len(matured.churn) >= config.min_rows and matured.returned(kind.days).any():
        return ReturnCurve.fit(matured, kind.days)
    promised = float((1 - before.churn).sum())
    if not before.returned(kind.days).any() or promised <= 0:
        return None
    return ReturnCurve(np.zeros(0), np.array([before.returned(kind.days).sum() / promised]), kind.days)


def _before(kind: Steps, earlier: Sequence[Monitored]) -> list[dict[str, object]]:
    """The checks of earlier runs, of whatever version served."""
    rows: list[dict[str, object]] = []
    for run in earlier:
        found = {one.name: one for one in run.checked.measurements}
        number, log_e = found.get(f"{kind.name}_check_number"), found.get(f"{kind.name}_avoidable_log_e")
        if number is None or log_e is None:
            continue
        known = {"check": kind.name, "number": int(number.value), "version": number.version}
        rows.append({**dict.fromkeys(COLUMNS, math.nan), **known, "rows": log_e.rows, "log_e": log_e.value})
    return rows


def _finding(name: str, newest: pd.Series, found: float, config: MonitoringConfig) -> Finding:
    labels = "the first weeks of labels" if name == "early" else "matured labels"
    return Finding(
        _test(name),
        "all",
        Cause.HARM,
        Severity.PAGE,
        f"model {newest['version']}: on {labels} a logistic regression fitted to the step before has a loss "
        f"that is {newest['mean_nats']:.4f} nats a customer lower; what the inputs say about churn has "
        "changed: train again on recent labels (`churn retrain`)",
        {
            "evidence_nats": found,
            "limit_nats": config.level(_test(name), 1),
            "mean_nats": float(newest["mean_nats"]),
            "tolerance_nats": float(config.performance.tolerance * newest["base_loss_nats"]),
            "rows": float(newest["rows"]),
        },
    )


def _test(kind: str) -> str:
    """The name of the finding and of its share of the error budget."""
    return f"{kind}_avoidable_loss"


def finite(value: object) -> float | None:
    """The number, or None for NaN and None."""
    number = math.nan if value is None else float(value)  # type: ignore[arg-type]
    return number if math.isfinite(number) else None
