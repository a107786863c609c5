"""The vectors of some customers from all their purchases, by the SQL of the batch build. No I/O."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from features.given_rows import GivenRows
from features.spec import FeaturesConfig
from stream.state import Held

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Aggregates:
    """`further`: the records' further columns -> their types. Raises FeatureError."""

    def __init__(self, spec: FeaturesConfig, further: Mapping[str, pa.DataType]) -> None:
        self._features = GivenRows(spec, further)

    def __call__(self, held: Held) -> pa.Table:
        """One row for each customer who is eligible at `held.as_of`: keys and features, as in
        customer_snapshots. Raises FeatureError when an expression fails for one of the rows."""
        rows = held.rows.select(self._features.schema.names)
        return self._features.at(rows, moment(held.as_of))


def moment(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


def microseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)
