"""Features of customers whose rows are given as a table, by the same SQL as the batch build.

It is for a few customers at a time whose rows are already in memory, as the stream has them.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa

from core.errors import FeatureError
from features.eligible import Rule
from features.expressions import Expressions
from features.log import Log
from features.purchases import load, rows_before, snapshot_at, table_of
from features.reads import quoted
from features.spec import FeaturesConfig, columns_read

STANDARD = {
    "user_id": pa.string(), "us": pa.int64(), "is_return": pa.bool_(), "amount": pa.float64(),
    "quantity": pa.float64(),
}  # fmt: skip
"""Columns of given rows: masked customer, microseconds of UTC, and the values of the records."""


class GivenRows:
    """Computes snapshots of given rows. `further`: the records' further columns -> their Arrow types.

    One thread at a time. Raises FeatureError for an expression that does not fit the columns.
    """

    def __init__(self, spec: FeaturesConfig, further: Mapping[str, pa.DataType]) -> None:
        wanted = columns_read(spec)
        if missing := sorted(wanted - further.keys()):
            raise FeatureError(f"features: the records have no column {missing[0]!r}; run `churn ingest`")
        self._spec = spec
        self._log = Log((), tuple(name for name in further if name in wanted), tuple(further))
        self.schema = pa.schema([*STANDARD.items(), *((name, further[name]) for name in self._log.further)])
        """Of the tables that `at` takes."""
        settings: dict[str, Any] = {"memory_limit": spec.memory_limit, "threads": 1}
        self._connection = duckdb.connect(":memory:", config=settings)
        self._connection.execute("SET TimeZone = 'UTC'")
        self._rule = Rule.of(spec, self._connection)

    def at(self, rows: pa.Table, as_of: datetime) -> pa.Table:
        """The snapshot of the eligible customers at `as_of`, with the columns of customer_snapshots.

        `rows` [n] has `schema` and is sorted by customer and time; rows at or after `as_of` do not count.
        Raises FeatureError when an expression fails for these rows.
        """
        connection = self._connection
        connection.register("given", rows)
        try:
            load(self._spec, connection, self._log, self._source)
            query = snapshot_at(self._spec, self._rule, self._log, as_of)
            return connection.sql(query).to_arrow_table()
        except duckdb.Error as error:
            raise Expressions(self._spec, self._log.aliases).computation_error(
                connection, lambda over: rows_before(table_of(over), as_of), error
            ) from None
        finally:
            connection.unregister("given")

    def close(self) -> None:
        self._connection.close()

    @property
    def _source(self) -> str:
        aliases = self._log.aliases | {"us": "us#"}
        listed = ", ".join(f"{quoted(name)} AS {quoted(aliases[name])}" for name in self.schema.names)
        return f"SELECT {listed} FROM given"
