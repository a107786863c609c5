"""CDNOW as training sees it, made from the wheel's text with the spec's own expressions."""

import hashlib
from datetime import timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from features.spec import FeaturesConfig
from support.cdnow import cdnow_log

SNAPSHOTS = pd.date_range("1997-04-01", "1998-04-01", freq="MS", tz="UTC")
TELCO = Path(__file__).resolve().parents[3] / "shared" / "data" / "Telco-Customer-Churn.csv"


def cdnow_records(customers: int | None) -> pd.DataFrame:
    """The log of the first `customers` (all by default), as records.parquet holds it."""
    log = cdnow_log()
    if customers is not None:
        log = log[log["customer"].astype(int) % (23_570 // customers) == 0]
    masked = {c: "u_" + hashlib.sha256(c.encode()).hexdigest()[:32] for c in log["customer"].unique()}
    records = log.assign(user_id=log["customer"].map(masked))[["user_id", "timestamp", "amount", "quantity"]]
    return records.sort_values(["user_id", "timestamp"], kind="stable", ignore_index=True)


def cdnow_frame(records: pd.DataFrame, spec: FeaturesConfig) -> pd.DataFrame:
    """user_id, event_timestamp, churned and the spec's inputs at each monthly snapshot."""
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'; set threads = 1")
        connection.register("records", records)
        frame = pd.concat([_snapshot(connection, as_of, spec) for as_of in SNAPSHOTS], ignore_index=True)
    for ratio in spec.derived:
        frame[ratio.name] = frame[ratio.numerator] / frame[ratio.denominator].clip(lower=ratio.floor)
    return frame


def _snapshot(
    connection: duckdb.DuckDBPyConnection, as_of: pd.Timestamp, spec: FeaturesConfig
) -> pd.DataFrame:
    columns = ", ".join(
        f"{f.reading.sql if f.default is None else f'coalesce({f.reading.sql}, {f.default!r})'} as {f.name}"
        for f in spec.features
    )
    query = f"""
        with past as (
            select *, epoch($as_of - timestamp) / 86400 as age_days,
                   epoch(timestamp - lag(timestamp) over customer) / 86400 as gap_days
            from records where timestamp < $as_of
            window customer as (partition by user_id order by timestamp)
        ), back as (select distinct user_id from records where timestamp >= $as_of and timestamp < $until)
        select user_id, $as_of as event_timestamp, {columns},
               (user_id not in (select user_id from back))::tinyint as churned
        from past group by user_id order by user_id
    """
    until = as_of + timedelta(days=spec.horizon_days)
    return connection.execute(query, {"as_of": as_of, "until": until}).df()


def telco_frame() -> pd.DataFrame:
    rows = pd.read_csv(TELCO)
    rows["TotalCharges"] = pd.to_numeric(rows["TotalCharges"], errors="coerce")
    return rows.assign(
        user_id=rows["customerID"],
        event_timestamp=pd.Timestamp("2019-01-01", tz="UTC"),
        churned=(rows["Churn"] == "Yes").astype(np.int8),
    )
