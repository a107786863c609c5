"""What a model loses with its age, measured on history; no model has to have served for it.

For each of some past snapshots a model is fitted to the outcomes that were known then. All of them are judged
on the customers of the newest snapshot whose horizon has passed, so that only their age differs. The models
are logistic regressions: what ages is above all the relation between inputs and churn, which they share with
the network.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.database import parquet
from features.reads import quoted
from features.show import ratio_sql
from monitoring.config import MonitoringConfig
from monitoring.findings import Checked, Measurement, Monitored
from monitoring.sources import Sources
from training.evaluate.baselines import Task, logistic_regression
from training.learn.inputs import Inputs
from training.learn.metrics import log_losses

NATS, MOMENT = "ageing_nats", "ageing_moment"
"""Names of measurements: the loss beyond that of a fresh model, whose subject is the age in days; and the
snapshot of the customers, in Unix seconds."""
MOST_MODELS = 7
"""Models that are fitted at a check, the fresh one included."""
COLUMNS = ("moment", "age_days", "nats", "rows")
DAY_S = 86400
EMPTY = pd.DataFrame(columns=list(COLUMNS))

Floats = NDArray[np.float64]


def measure(
    sources: Sources, moments: Sequence[pd.Timestamp], config: MonitoringConfig, earlier: Sequence[Monitored]
) -> pd.DataFrame:
    """A row with COLUMNS for each age above 0; none where an earlier run has judged the same customers, or
    where outcomes of two snapshots are not known yet."""
    horizon = pd.Timedelta(sources.spec.horizon)
    known = [moment for moment in moments if moment + horizon <= pd.Timestamp(sources.at)]
    if not known or not sources.labels.is_file() or known[-1].timestamp() in _measured(earlier):
        return EMPTY
    rows = _labelled(sources, known[-1], config.performance.sample)
    if rows is None:
        return EMPTY
    judged = rows[rows["event_timestamp"] == known[-1]]
    losses: dict[float, Floats] = {}
    for trained in _spread([moment for moment in known if moment - horizon >= known[0]]):
        train = rows[rows["event_timestamp"] + horizon <= trained]
        if min(len(train), len(judged)) >= config.min_rows and train["churned"].nunique() == 2:
            losses[(known[-1] - trained).total_seconds() / DAY_S] = _losses(train, judged, sources)
    fresh = losses.pop(0.0, None)
    if fresh is None:
        return EMPTY
    found = [
        (known[-1].timestamp(), age, float((aged - fresh).mean()), len(judged))
        for age, aged in sorted(losses.items())
    ]
    return pd.DataFrame(found, columns=list(COLUMNS))


def check(table: pd.DataFrame) -> Checked:
    """The measurements of the table of `measure`. Age is no finding: the governor weighs its costs."""
    if table.empty:
        return Checked()
    found = [
        Measurement(NATS, float(row["nats"]), int(row["rows"]), f"{row['age_days']:g}")
        for row in table.to_dict("records")
    ]
    newest = table.iloc[0]
    return Checked((Measurement(MOMENT, float(newest["moment"]), int(newest["rows"])), *found), ())


def _measured(earlier: Sequence[Monitored]) -> set[float]:
    return {one.value for run in earlier for one in run.checked.measurements if one.name == MOMENT}


def _spread(moments: Sequence[pd.Timestamp]) -> list[pd.Timestamp]:
    """At most MOST_MODELS of the moments, evenly spread, with the newest and the oldest one."""
    places = np.linspace(0, len(moments) - 1, min(MOST_MODELS, len(moments))).round().astype(int)
    return [moments[place] for place in places]


def _labelled(sources: Sources, newest: pd.Timestamp, most: int) -> pd.DataFrame | None:
    """Rows with a known outcome and the inputs of the network, up to the snapshot `newest`, of about `most`
    customers, chosen by a hash. None where the snapshots lack a feature."""
    spec, snapshots = sources.spec, parquet(sources.snapshots)
    until = f"TIMESTAMPTZ '{newest.isoformat()}'"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        there = {row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {snapshots}").fetchall()}
        if not there.issuperset(sources.used):
            return None
        [(customers,)] = connection.execute(
            f"SELECT count(*) FROM {snapshots} WHERE event_timestamp = {until}"
        ).fetchall()
        inputs = ", ".join([*map(quoted, sources.used), *map(ratio_sql, spec.derived)])
        rows: pd.DataFrame = connection.execute(
            f"""SELECT user_id, event_timestamp, churned, {inputs}
                FROM {snapshots} AS s JOIN {parquet(sources.labels)} AS l USING (user_id, event_timestamp)
                WHERE event_timestamp <= {until} AND hash(user_id) % {max(int(customers), 1)} < {int(most)}
                ORDER BY event_timestamp, user_id"""
        ).df()
    rows["event_timestamp"] = pd.to_datetime(rows["event_timestamp"], utc=True)
    return rows


def _losses(train: pd.DataFrame, judged: pd.DataFrame, sources: Sources) -> Floats:
    """Log-loss of each judged row, in nats."""
    inputs = Inputs.learn(train, sources.spec)
    scores = logistic_regression(Task(train, judged, inputs, sources.spec.horizon, Path(), seed=0))
    return np.asarray(log_losses(judged["churned"].to_numpy(dtype=np.int64), scores), dtype=np.float64)
