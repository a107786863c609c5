"""Compares the tables that two programs have built, row by row and number by number."""

from collections.abc import Sequence
from pathlib import Path

import duckdb

KEYS = ("user_id", "event_timestamp")
CLOSE = 1e-9
"""Relative: sums in another order differ in their last bits."""


class Different(RuntimeError):
    """The two tables differ; the message names the first column that does, and where."""


def compare(ours: Path, theirs: Path, columns: Sequence[str]) -> int:
    """The number of rows, which are the same in both Parquet files. A NaN is a null.

    Raises Different.
    """
    on = " AND ".join(f"a.{key} = b.{key}" for key in KEYS)
    with duckdb.connect(":memory:", config={"memory_limit": "2GB", "threads": 2}) as connection:
        connection.execute(f"CREATE VIEW a AS FROM read_parquet('{ours}')")
        connection.execute(f"CREATE VIEW b AS FROM read_parquet('{theirs}')")
        rows = [connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in "ab"]
        both = connection.execute(f"SELECT count(*) FROM a JOIN b ON {on}").fetchall()[0][0]
        if not rows[0] == rows[1] == both:
            raise Different(f"ours has {rows[0]:,} rows, the other {rows[1]:,}, and {both:,} are in both")
        for column in columns:
            found = connection.execute(
                f"SELECT a.user_id, a.event_timestamp, a.{column}, b.{column} FROM a JOIN b ON {on}"
                f" WHERE NOT coalesce({_same(column)}, false) LIMIT 1"
            ).fetchall()
            if found:
                user, moment, one, other = found[0]
                raise Different(f"{column}: {one} in ours and {other} in the other, for {user} at {moment}")
    return int(both)


def _same(column: str) -> str:
    one, other = (f"nullif({table}.{column}::DOUBLE, 'nan'::DOUBLE)" for table in "ab")
    close = f"abs({one} - {other}) <= {CLOSE} * greatest(1, abs({one}), abs({other}))"
    return f"(({one} IS NULL AND {other} IS NULL) OR {close})"
