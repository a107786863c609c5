"""The DuckDB that builds features: bounded memory, spilling below the workspace."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from data.errors import FeatureError
from features.reads import literal
from features.spec import FeaturesConfig


@contextmanager
def opened(spec: FeaturesConfig, spill: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory database that spills to folder `spill`.

    One thread a query: with more, sums of floats are added in another order each time. Work on several
    cores is done by several cursors, each with customers of its own.
    """
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": spec.memory_limit,
        "temp_directory": str(spill),
        "threads": 1,
    }
    try:
        connection = duckdb.connect(":memory:", config=settings)
    except duckdb.Error as error:
        raise FeatureError(
            f"features.memory_limit {spec.memory_limit!r}: {str(error).splitlines()[0]}"
        ) from None
    with connection:
        connection.execute("SET GLOBAL TimeZone = 'UTC'")  # of the cursors too
        yield connection


def parquet(file: Path, options: str = "") -> str:
    """The table function that reads one file."""
    # a workspace may have brackets or a star in its name, which are a pattern to DuckDB
    name = re.sub(r"([*?[])", r"[\1]", str(file))
    return f"read_parquet([{literal(name)}], hive_partitioning = false{options})"


def write_parquet(connection: duckdb.DuckDBPyConnection, query: str, file: Path) -> None:
    """Stream a query's rows, in their order, into one file."""
    connection.execute(f"COPY ({query}) TO {literal(str(file))} (FORMAT parquet, COMPRESSION zstd)")
