"""The DuckDB database that builds features, with bounded memory and a spill folder in the workspace."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from core.errors import FeatureError
from features.reads import literal
from features.spec import FeaturesConfig


@contextmanager
def open_database(spec: FeaturesConfig, spill: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory database that spills to the folder `spill`. Raises FeatureError for a bad memory limit.

    A query uses one thread: with several, the order in which floats are added would vary. Several cursors,
    each for different customers, use several cores.
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
        connection.execute("SET GLOBAL TimeZone = 'UTC'")  # applies to cursors too
        yield connection


def parquet(file: Path, *further: Path, options: str = "") -> str:
    """SQL: the table function that reads one file, or several with the same columns."""
    # DuckDB would read brackets or a star in the path of a workspace as a pattern
    names = ", ".join(literal(re.sub(r"([*?[])", r"[\1]", str(one))) for one in (file, *further))
    return f"read_parquet([{names}], hive_partitioning = false{options})"


def write_parquet(connection: duckdb.DuckDBPyConnection, query: str, file: Path) -> None:
    """Write a query's rows, in their order, into one file, as a stream. Raises duckdb.Error."""
    connection.execute(f"COPY ({query}) TO {literal(str(file))} (FORMAT parquet, COMPRESSION zstd)")
