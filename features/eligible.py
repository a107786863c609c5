"""The eligibility rule: the spec's condition selects the customers for training, scoring and online store."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from core.errors import FeatureError
from features.database import parquet
from features.labels import moment
from features.reads import quoted, reading
from features.spec import SQL_TYPE, FeaturesConfig


@dataclass(frozen=True)
class Rule:
    """`condition` is SQL over the snapshot's columns; `true` when every customer is eligible."""

    condition: str

    @classmethod
    def of(cls, spec: FeaturesConfig, connection: duckdb.DuckDBPyConnection) -> "Rule":
        """The rule of the spec. Raises FeatureError when its condition is invalid or not boolean."""
        if spec.eligibility is None:
            return cls("true")
        condition = reading(spec.eligibility).bound({f.name: f.name for f in spec.features})
        empty_row = ", ".join(f"NULL::{SQL_TYPE[f.dtype]} AS {quoted(f.name)}" for f in spec.features)
        try:
            [(_, kind, *_)] = connection.execute(
                f"DESCRIBE SELECT ({condition}\n) AS eligible FROM (SELECT {empty_row})"
            ).fetchall()
        except duckdb.Error as error:
            raise FeatureError(f"features.eligible: {str(error).splitlines()[0]}; correct it") from None
        if kind != "BOOLEAN":
            raise FeatureError(
                f"features.eligible: gives {kind}; write a condition such as recency_days <= 365"
            )
        return cls(f"({condition}\n)")

    def count_excluded(
        self, connection: duckdb.DuckDBPyConnection, purchases: str, as_of: datetime, snapshot: Path
    ) -> int:
        """The number of customers with a purchase before `as_of` who are not in the file `snapshot`."""
        if self.condition == "true":
            return 0
        [(known, eligible)] = connection.execute(
            f"""SELECT (SELECT count(DISTINCT "user_id#") FROM {purchases}
                        WHERE "timestamp#" < {moment(as_of)}),
                       (SELECT count(*) FROM {parquet(snapshot)})"""
        ).fetchall()
        return int(known - eligible)
