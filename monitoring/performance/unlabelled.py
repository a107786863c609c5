"""The estimate of the champion's performance on the newest predictions, its trust, and its later grade."""

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monitoring.config import MonitoringConfig
from monitoring.findings import Measurement, Monitored
from monitoring.performance.conditions import stability
from monitoring.performance.estimate import Floats, Matured, estimate
from monitoring.performance.inputs import PerformanceInputs
from monitoring.performance.samples import early_sample, matured_sample, newest_sample
from training.decision_value import break_even

LIKELY = 50.0
"""Largest weight of a matured row."""

PENALTY = 1e-3
"""Inverse strength of the penalty of the density ratio."""

REASONS = ("few_rows", "few_moments", "old_labels", "unseen_region", "unstable", "concept_change")


def unlabelled(
    connection: duckdb.DuckDBPyConnection,
    inputs: PerformanceInputs,
    config: MonitoringConfig,
    evidence: Mapping[str, float],
) -> list[Measurement]:
    """`estimated_<metric>` with intervals, `estimate_untrusted` (1 or 0), and each reason for it (1 or 0).

    `evidence`: log evidence of a change, early and late. Metrics are NaN where there are no matured rows.
    """
    most = config.performance.sample
    known = matured_sample(connection, inputs, most)
    followed = early_sample(connection, inputs, config.performance.step_days, most, config.min_rows)
    return estimated(known, followed, newest_sample(connection, inputs, most), inputs, config, evidence)


def estimated(
    known: pd.DataFrame,
    followed: pd.DataFrame,
    now: pd.DataFrame,
    inputs: PerformanceInputs,
    config: MonitoringConfig,
    evidence: Mapping[str, float],
) -> list[Measurement]:
    """The measurements of `unlabelled` from the rows of three samples (monitoring/performance/samples.py)."""
    own = config.performance
    rows = len(now)

    def of(name: str, value: float, low: float | None = None, high: float | None = None) -> Measurement:
        return Measurement(name, value, rows, "all", inputs.version, low, high)

    if len(known) < config.min_rows or rows < config.min_rows or known["churned"].nunique() < 2:
        marks = dict.fromkeys(REASONS, 0.0) | {"few_rows": 1.0}
        return [of("estimate_untrusted", 1.0), *(of(f"estimate_{name}", one) for name, one in marks.items())]
    weight, overlap = _weights(known, now, inputs)
    moment, moments = pd.factorize(known["moment"], sort=True)
    customer, _ = pd.factorize(known["customer"])
    matured = Matured(
        customer.astype(np.int64), moment.astype(np.int64), known["score"].to_numpy(dtype=np.float64),
        known["churned"].to_numpy(dtype=np.float64), weight,
    )  # fmt: skip
    threshold = break_even(inputs.decision) if inputs.decision.threshold == "profit" else 0.5
    found = estimate(matured, now["score"].to_numpy(dtype=np.float64), threshold, inputs.decision)
    number, times = pd.factorize(followed["moment"], sort=True)
    stable = stability(
        followed["score"].to_numpy(dtype=np.float64), followed["stayed_away"].to_numpy(dtype=np.float64),
        number.astype(np.int64), ((times - times.min()) / pd.Timedelta(days=1)).to_numpy(dtype=np.float64),
    )  # fmt: skip
    age = (pd.Timestamp(inputs.at) - pd.Timestamp(known["moment"].max())) / pd.Timedelta(days=1)
    marks = {
        "few_rows": float(weight.sum() ** 2 / (weight**2).sum() < config.min_rows),
        "few_moments": float(len(moments) < own.moments),
        "old_labels": float(age > inputs.spec.horizon_days + own.label_age_days),
        "unseen_region": float(overlap > own.unseen_share),
        "unstable": float(stable.doubted(own.doubt)),
        "concept_change": float(max(evidence.values(), default=0.0) >= math.log(1 / own.doubt)),
    }
    return [
        *(of(f"estimated_{name}", one.value, one.low, one.high) for name, one in found.metrics.items()),
        of("estimate_period_sd_log_odds", found.period_sd),
        of("estimate_unseen_share", overlap),
        of("estimate_stability_p", stable.p_value),
        of("estimate_untrusted", float(any(marks.values()))),
        *(of(f"estimate_{name}", one) for name, one in marks.items()),
    ]


def graded(
    inputs: PerformanceInputs, late: Sequence[Measurement], earlier: Sequence[Monitored], every_days: float
) -> list[Measurement]:
    """`estimate_covered_<metric>`: 1 where the interval that a run estimated one horizon ago contains what
    the labels show now, else 0. The run is the one nearest to that time, within half of the time between two
    runs."""
    wanted = inputs.at - timedelta(days=inputs.spec.horizon_days)
    near = [run for run in earlier if abs(run.at - wanted) <= timedelta(days=every_days) / 2]
    if not near:
        return []
    run = min(near, key=lambda one: abs(one.at - wanted))
    promised = {(one.name, one.version): one for one in run.checked.measurements if one.subject == "all"}
    result = []
    for one in late:
        before = promised.get((one.name.replace("late_", "estimated_", 1), one.version))
        if one.subject != "all" or before is None or before.low is None or before.high is None:
            continue
        if math.isfinite(one.value):
            inside = float(before.low <= one.value <= before.high)
            name = one.name.replace("late_", "estimate_covered_", 1)
            result.append(Measurement(name, inside, one.rows, "all", one.version))
    return result


def _weights(known: pd.DataFrame, now: pd.DataFrame, inputs: PerformanceInputs) -> tuple[Floats, float]:
    """The weight of each matured row, with a mean of 1, and the share of the rows of now in regions where
    matured rows are less than 1/LIKELY as frequent.

    The density ratio is g / (1 - g) times the ratio of rows, with g the probability of being a row of now
    by a logistic regression on the model's inputs and score. Its penalty is strong, since inputs that grow
    with time by construction (tenure, totals) would otherwise tell the two apart and make all rows look new.
    """
    from sklearn.linear_model import LogisticRegression

    matrix = _standardised(pd.concat([known, now], ignore_index=True), inputs)
    is_now = np.r_[np.zeros(len(known)), np.ones(len(now))]
    odds = np.exp(LogisticRegression(C=PENALTY, max_iter=300).fit(matrix, is_now).decision_function(matrix))
    ratio = odds * len(known) / len(now)
    weight = np.clip(ratio[: len(known)], 1 / LIKELY, LIKELY)
    return weight / weight.mean(), float(np.mean(ratio[len(known) :] > LIKELY))


def _standardised(rows: pd.DataFrame, inputs: PerformanceInputs) -> Floats:
    """Numeric inputs as signed log1p, clipped at 5 standard deviations, with a flag for gaps; the score's
    log-odds. A category is one of at most 20 flags."""
    columns: list[NDArray[np.float64]] = []
    for name in inputs.spec.numeric:
        values = pd.to_numeric(rows[name], errors="coerce").to_numpy(dtype=np.float64)
        gaps = ~np.isfinite(values)
        values = np.where(gaps, 0.0, values)
        columns += [np.sign(values) * np.log1p(np.abs(values)), gaps.astype(np.float64)]
    for name in inputs.spec.categorical:
        for value in rows[name].value_counts().index[:20]:
            columns.append((rows[name] == value).to_numpy(dtype=np.float64))
    p = np.clip(rows["score"].to_numpy(dtype=np.float64), 1e-6, 1 - 1e-6)
    matrix = np.column_stack([*columns, np.log(p / (1 - p))])
    spread = matrix.std(axis=0)
    scaled = (matrix - matrix.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return np.asarray(np.clip(scaled, -5, 5), dtype=np.float64)
