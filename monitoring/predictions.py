"""Reads the prediction log of one window in DuckDB (the columns are in handlers/records/record.py)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pandas as pd

from features.reads import literal, quoted

BEFORE = timedelta(days=1)
"""A segment is in the folder of the day of its first row, so a row may be in the folder of the day before."""

USABLE = "status IN ('ok', 'stale') AND len(coalesce(overridden, [])) = 0"
"""Predictions from a vector as it was stored: no what-if question, no default for a missing store."""


@dataclass(frozen=True)
class Predictions:
    """The predictions with since <= time < at."""

    files: tuple[Path, ...]
    since: datetime
    at: datetime
    left_out: frozenset[str] = frozenset()
    """Model versions whose vectors are not read, because they are of another feature spec."""

    @classmethod
    def of(
        cls, folder: Path, since: datetime, at: datetime, left_out: frozenset[str] = frozenset()
    ) -> "Predictions | None":
        """None: the log has no file of the window."""
        low, high = f"date={since - BEFORE:%Y-%m-%d}", f"date={at:%Y-%m-%d}"
        days = [day for day in sorted(folder.glob("date=*")) if low <= day.name <= high]
        files = tuple(file for day in days for file in sorted(day.glob("*.parquet")))
        return cls(files, since, at, left_out) if files else None

    @property
    def usable(self) -> str:
        """SQL: the condition for a prediction whose vector is compared."""
        if not self.left_out:
            return USABLE
        return f"{USABLE} AND model_version NOT IN ({', '.join(map(literal, sorted(self.left_out)))})"

    @property
    def rows(self) -> str:
        """SQL: all predictions of the window."""
        files = ", ".join(literal(str(file)) for file in self.files)
        return f"""SELECT * FROM read_parquet([{files}], union_by_name = true, hive_partitioning = false)
                   WHERE time >= TIMESTAMPTZ '{self.since.isoformat()}'
                     AND time < TIMESTAMPTZ '{self.at.isoformat()}'"""

    def moments(self, most: int) -> list[pd.Timestamp]:
        """The newest moments of features from which predictions were made, ascending."""
        found = self.query(
            f"SELECT DISTINCT features_at FROM ({self.rows}) WHERE {self.usable} AND features_at IS NOT NULL"
            f" ORDER BY features_at DESC LIMIT {most}"
        )
        return sorted(pd.to_datetime(found["features_at"], utc=True))

    def vectors(self, inputs: Sequence[str], moments: Sequence[pd.Timestamp]) -> str:
        """SQL: user_id, event_timestamp and the inputs of the usable predictions from these moments."""
        names = ", ".join(f"{quoted('feature_' + name)} AS {quoted(name)}" for name in inputs)
        times = ", ".join(f"TIMESTAMPTZ '{moment.isoformat()}'" for moment in moments)
        return f"""SELECT user_id, features_at AS event_timestamp, {names} FROM ({self.rows})
                   WHERE {self.usable} AND features_at IN ({times})"""

    def scores(self) -> pd.DataFrame:
        """The newest score of each customer (`score`), indexed by `user_id`."""
        found = self.query(
            f"SELECT user_id, arg_max(score, time) AS score FROM ({self.rows}) GROUP BY user_id"
        )
        return found.set_index("user_id")

    def drops(self) -> pd.DataFrame:
        """One row: how many records are there (`written`), and how many their workers dropped (`dropped`)."""
        names = self.query(f"DESCRIBE {self.rows}")["column_name"]
        # older workers did not count
        dropped = "coalesce(sum(dropped_before), 0)" if "dropped_before" in set(names) else "0"
        return self.query(f"SELECT count(*) AS written, {dropped}::BIGINT AS dropped FROM ({self.rows})")

    def version(self) -> str:
        """The model version of the newest prediction that no canary made; empty if there is none."""
        found = self.query(
            f"SELECT arg_max(model_version, time) AS version FROM ({self.rows}) WHERE variant = 'stable'"
        )
        version = found["version"].iloc[0]
        return version if isinstance(version, str) else ""

    def versions(self) -> list[str]:
        """All model versions that made a prediction."""
        found = self.query(
            f"SELECT DISTINCT model_version FROM ({self.rows}) WHERE model_version IS NOT NULL"
        )
        return sorted(found["model_version"])

    def query(self, sql: str) -> pd.DataFrame:
        """Run one query with bounded memory."""
        with duckdb.connect(":memory:", config={"memory_limit": "2GB", "threads": 2}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.execute(sql).df()
