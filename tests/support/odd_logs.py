"""Made purchase logs with what real ones have rarely: for comparing two engines, row by row.

A log is made from its number alone. Many are stacked into one table, because customers do not depend on each
other: a difference then names one customer, whose rows are few.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.workspace import Workspace
from support.feature_records import records_part, write_manifest

START = datetime(2023, 12, 1, tzinfo=UTC)
END = datetime(2025, 4, 1, tzinfo=UTC)
MOMENTS = [datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)]
HORIZON = timedelta(days=30)
US_A_DAY = 86_400_000_000
LAST_US = (END - START) // timedelta(microseconds=1) - 1

# where something begins or ends: a snapshot, a horizon, a window, a month, a leap day, the log
_EDGES = sorted(
    {0, LAST_US}
    | {
        (moment - START) // timedelta(microseconds=1) - days * US_A_DAY
        for moment in MOMENTS
        for days in (-30, 0, 14, 30, 60, 90, 180, 365)
    }
    | {
        (datetime(year, month, 1, tzinfo=UTC) - START) // timedelta(microseconds=1)
        for year, month in ((2024, 1), (2024, 2), (2024, 3), (2024, 7), (2025, 1))
    }
)
EDGES = [us for us in _EDGES if 0 <= us <= LAST_US]
SHOPS = ["web", "Web", "", "ÅÄÖ ñ", "e\u0301", "🤦🏼‍♂️", "it's", 'a "b"', "back\\slash", "%_", None]
AMOUNTS = [0.0, -0.0, 1e-300, 5e-324, 1e15, 1e300, 1.7e308, 0.1, 0.01, 19.99]
SCORES = [None, 0.0, -0.0, 1.5, 1 / 3, float("nan"), float("inf")]
SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("timestamp", pa.timestamp("us", tz="UTC")),
        ("amount", pa.float64()),
        ("quantity", pa.float64()),
        ("is_return", pa.bool_()),
        ("Shop name", pa.string()),
        ("shop name", pa.string()),  # differs in case only
        ("items", pa.int64()),
        ("score", pa.float64()),
    ]
)


def odd_log(number: int) -> pa.Table:
    """Some customers with few rows each, unsorted, with the columns of SCHEMA."""
    draw = np.random.default_rng(number)
    rows = []
    for customer in range(int(draw.integers(1, 6))):
        user = f"u_{number:06d}-{customer}"
        size = int(draw.choice([1, 2, 3, 8, 30]))
        times = np.where(
            draw.random(size) < 0.4,
            np.clip(draw.choice(EDGES, size) + draw.integers(-1, 2, size), 0, LAST_US),
            draw.integers(0, LAST_US, size),
        )
        if draw.random() < 0.5:  # several rows at the same moment
            times[draw.random(size) < 0.5] = times[0]
        odd_amounts = draw.random() < 0.3
        only_returns = draw.random() < 0.05
        for us in times:
            amount = draw.choice(AMOUNTS) if odd_amounts else draw.integers(1, 100_000) / 100
            returned = only_returns or draw.random() < 0.15
            rows.append(
                {
                    "user_id": user,
                    "timestamp": START + timedelta(microseconds=int(us)),
                    "amount": None if draw.random() < 0.02 else float(-amount if returned else amount),
                    "quantity": None if draw.random() < 0.02 else float(draw.integers(1, 5)),
                    "is_return": None if draw.random() < 0.05 and not only_returns else bool(returned),
                    "Shop name": SHOPS[draw.integers(0, len(SHOPS))],
                    "shop name": SHOPS[draw.integers(0, 3)],
                    "items": None if draw.random() < 0.1 else int(draw.choice([-3, 0, 7, 2**53 + 1, 2**60])),
                    "score": SCORES[draw.integers(0, len(SCORES))],
                }
            )
    return pa.Table.from_pylist(rows, SCHEMA)


def write_odd_logs(files: Workspace, numbers: Sequence[int]) -> None:
    """Write these logs as the records of a workspace: a base in two ranges of customers, and deliveries.

    The columns of the parts are in different orders, and one delivery has fewer.
    """
    log = pa.concat_tables(odd_log(number) for number in numbers)
    draw = np.random.default_rng(numbers[0])
    part = np.where(draw.random(log.num_rows) < 0.7, 0, draw.integers(1, 4, log.num_rows))
    users = np.array(log["user_id"].to_pylist())
    is_low = users < np.sort(np.unique(users))[len(np.unique(users)) // 2]
    pieces = {
        "base-000.parquet": ((part == 0) & is_low, SCHEMA.names),
        "base-001.parquet": ((part == 0) & ~is_low, SCHEMA.names),
        "delivery-001.parquet": (part == 1, SCHEMA.names[::-1]),
        "delivery-002.parquet": (part == 2, ["timestamp", *SCHEMA.names[2:4], "user_id"]),
        "delivery-003.parquet": (part == 3, SCHEMA.names),
    }
    for name, (chosen, columns) in pieces.items():
        rows = log.filter(pa.array(chosen)).sort_by([("user_id", "ascending"), ("timestamp", "ascending")])
        pq.write_table(rows.select(columns), records_part(files, name))
    write_manifest(files, "transactions", log.num_rows, START, END)
