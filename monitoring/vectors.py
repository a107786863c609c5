"""Derives feature vectors again from the records, and compares them with those that were served and stored.

All comparisons are made by DuckDB, with bounded memory; only counts leave it.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from features import purchases
from features.database import open_database, parquet
from features.reads import literal, quoted
from features.show import ratio_sql
from features.snapshots import Schedule
from features.spec import FeaturesConfig
from monitoring.checks.skew import NO_VECTOR, NOT_STORED
from monitoring.config import MonitoringConfig
from monitoring.predictions import Predictions
from monitoring.sources import Sources

COLUMNS = ["source", "feature", "compared", "customers", "defaults", "stale", "as_stored",
           "ratio_low", "ratio", "ratio_high"]  # fmt: skip


def compare(
    sources: Sources,
    predictions: Predictions | None,
    moments: Sequence[pd.Timestamp],
    is_log: bool,
    config: MonitoringConfig,
) -> pd.DataFrame:
    """The counts that monitoring/checks/skew.py judges; without rows where nothing can be compared.

    `moments`: of the snapshots. `is_log`: the records are a log. A labelled table contains its vectors, so
    that only the snapshots themselves can be compared with what was served.
    """
    served = predictions.moments(config.skew.moments) if predictions else []
    newest = moments[-1:] if is_log else []
    wanted = sorted({*served, *newest})
    if not wanted:
        return pd.DataFrame(columns=COLUMNS)
    with (
        tempfile.TemporaryDirectory(prefix="vectors-") as scratch,
        _derived(sources, wanted, is_log, Path(scratch)) as connection,
    ):
        parts = []
        if predictions and served:
            rows = predictions.vectors([feature for feature, _ in _inputs(sources.spec)], served)
            parts.append(_Comparison("served", sources, moments, config).of(connection, rows))
        if newest:
            parts.append(
                _Comparison("stored", sources, moments, config).of(connection, _snapshot(sources, newest[0]))
            )
    return pd.concat(parts, ignore_index=True)


@contextmanager
def _derived(
    sources: Sources, wanted: Sequence[pd.Timestamp], is_log: bool, scratch: Path
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with the view `derived`: user_id, event_timestamp and the features at the wanted moments."""
    out = scratch / "parts"
    if is_log:
        plan = Schedule(tuple(moment.to_pydatetime().astimezone(UTC) for moment in wanted), ())
        purchases.write_parts(sources.spec, sources.records, plan, out, lambda _: None)
    with open_database(sources.spec, scratch / "spill") as connection:
        connection.execute("SET threads = 2")
        rows = (
            f"read_parquet({literal(str(out / 'snapshots' / '*.parquet'))})"
            if is_log
            else parquet(sources.snapshots)
        )
        connection.execute(f"CREATE TEMP VIEW derived AS SELECT {_columns(sources.spec)} FROM {rows}")
        yield connection


@dataclass(frozen=True)
class _Comparison:
    source: str
    sources: Sources
    moments: Sequence[pd.Timestamp]
    config: MonitoringConfig

    def of(self, connection: duckdb.DuckDBPyConnection, rows: str) -> pd.DataFrame:
        """Compare `rows`, SQL with user_id, event_timestamp and the inputs of the network."""
        inputs = _inputs(self.sources.spec)
        differs = {name: self._differs(name, kind) for name, kind in inputs}
        [(compared, unknown)] = connection.execute(
            f"""SELECT count(DISTINCT l.user_id), count(DISTINCT l.user_id) FILTER (d.user_id IS NULL)
                FROM ({rows}) AS l LEFT JOIN derived AS d USING (user_id, event_timestamp)"""
        ).fetchall()
        both = ", ".join(
            f"any_value({side}.{quoted(name)}) AS {quoted(f'{side}_{name}')}"
            for name, _ in inputs
            for side in ("l", "d")
        )
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE differing AS
                SELECT l.user_id, l.event_timestamp, {both}
                FROM ({rows}) AS l JOIN derived AS d USING (user_id, event_timestamp)
                WHERE {" OR ".join(differs.values())} GROUP BY ALL"""
        )
        facts: list[dict[str, Any]] = [
            self._facts(connection, name, kind, int(compared) - int(unknown)) for name, kind in inputs
        ]
        facts.append({"feature": NO_VECTOR, "customers": int(unknown), "compared": int(compared),
                      "defaults": 0, "stale": 0, "as_stored": 0,
                      "ratio_low": 0.0, "ratio": 0.0, "ratio_high": 0.0})  # fmt: skip
        if self.source == "stored":
            facts.append(self._missing(connection, rows))
        return pd.DataFrame(facts).assign(source=self.source)[COLUMNS]

    def _facts(
        self, connection: duckdb.DuckDBPyConnection, name: str, kind: str, compared: int
    ) -> dict[str, Any]:
        mine, theirs = quoted("l_" + name), quoted("d_" + name)
        default = {f.name: f.default for f in self.sources.spec.features}.get(name)
        filled = f"v.{mine} IS NULL"
        if default is not None:
            text = literal(default) if isinstance(default, str) else repr(default)
            filled = f"({filled} OR v.{mine} = {text})"
        ratios = "NULL, NULL, NULL"
        if kind != "string":
            ratio = f"v.{mine} / nullif(v.{theirs}, 0)"
            ratios = ", ".join(
                f"quantile_cont({ratio}, {at}) FILTER ({ratio} > 0)" for at in (0.25, 0.5, 0.75)
            )
        old = f"before.{quoted(name)}"
        found = connection.execute(
            f"""
            SELECT count(DISTINCT v.user_id), count(DISTINCT v.user_id) FILTER ({filled}),
                   count(DISTINCT v.user_id) FILTER (before.user_id IS NOT NULL
                                                    AND v.{mine} IS NOT DISTINCT FROM {old}),
                   count(DISTINCT v.user_id) FILTER (s.user_id IS NOT NULL
                                                    AND v.{mine} IS NOT DISTINCT FROM s.{quoted(name)}),
                   {ratios}
            FROM (SELECT * FROM differing WHERE {self._differs(name, kind, "l_", "d_", "", "")}) AS v
            LEFT JOIN ({self._earlier()}) AS before
              ON v.user_id = before.user_id AND v.event_timestamp = before.following
            LEFT JOIN ({self._stored()}) AS s
              ON v.user_id = s.user_id AND v.event_timestamp = s.event_timestamp"""
        ).fetchall()[0]
        names = ("customers", "defaults", "stale", "as_stored", "ratio_low", "ratio", "ratio_high")
        return {"feature": name, "compared": compared,
                **{key: value or 0 for key, value in zip(names, found, strict=True)}}  # fmt: skip

    def _missing(self, connection: duckdb.DuckDBPyConnection, rows: str) -> dict[str, Any]:
        """Eligible customers of the records who are not in the snapshot."""
        moment = f"TIMESTAMPTZ '{self.moments[-1].isoformat()}'"
        [(compared, missing)] = connection.execute(
            f"""SELECT count(*), count(*) FILTER (l.user_id IS NULL)
                FROM (SELECT * FROM derived WHERE event_timestamp = {moment}) AS d
                LEFT JOIN ({rows}) AS l USING (user_id)"""
        ).fetchall()
        return {"feature": NOT_STORED, "customers": int(missing), "compared": int(compared), "defaults": 0,
                "stale": 0, "as_stored": 0, "ratio_low": 0.0, "ratio": 0.0, "ratio_high": 0.0}  # fmt: skip

    def _differs(
        self, name: str, kind: str, mine: str = "", theirs: str = "", left: str = "l.", right: str = "d."
    ) -> str:
        a, b = f"{left}{quoted(mine + name)}", f"{right}{quoted(theirs + name)}"
        if kind != "float64":
            return f"({a} IS DISTINCT FROM {b})"
        a, b = (f"(CASE WHEN isfinite({value}) THEN {value} END)" for value in (a, b))
        far = f"abs({a} - {b}) > {self.config.skew.tolerance!r} * greatest(abs({a}), abs({b}))"
        return f"(({a} IS NULL) <> ({b} IS NULL) OR coalesce({far}, false))"

    def _earlier(self) -> str:
        """SQL: the vectors of each snapshot, with the time of the one that follows."""
        pairs = list(zip(self.moments[:-1], self.moments[1:], strict=True))[-self.config.skew.moments :]
        if not pairs:
            return f"SELECT NULL::TIMESTAMPTZ AS following, * FROM ({self._stored()}) WHERE false"
        following = ", ".join(
            f"(TIMESTAMPTZ '{a.isoformat()}', TIMESTAMPTZ '{b.isoformat()}')" for a, b in pairs
        )
        return f"""SELECT following, own.* FROM ({self._stored()}) AS own
                   JOIN (VALUES {following}) AS pair(own, following) ON own.event_timestamp = pair.own"""

    def _stored(self) -> str:
        if not self.sources.snapshots.is_file():
            return "SELECT * FROM derived WHERE false"
        # what is stored is compared with the records, so that it does not explain itself
        none = " WHERE false" if self.source == "stored" else ""
        return f"SELECT {_columns(self.sources.spec)} FROM {parquet(self.sources.snapshots)}{none}"


def _inputs(spec: FeaturesConfig) -> list[tuple[str, str]]:
    """Name and type of each input of the network."""
    return [(f.name, f.dtype) for f in spec.features] + [(r.name, "float64") for r in spec.derived]


def _columns(spec: FeaturesConfig) -> str:
    names = [quoted(feature.name) for feature in spec.features]
    return ", ".join(["user_id", "event_timestamp", *names, *map(ratio_sql, spec.derived)])


def _snapshot(sources: Sources, moment: pd.Timestamp) -> str:
    at: datetime = moment.to_pydatetime()
    return (
        f"SELECT {_columns(sources.spec)} FROM {parquet(sources.snapshots)}"
        f" WHERE event_timestamp = TIMESTAMPTZ '{at.isoformat()}'"
    )
