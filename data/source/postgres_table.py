"""Reads a table or a query of PostgreSQL by COPY, in a read-only transaction.

The digest is computed from the rows as COPY writes them under fixed settings (UTC, ISO dates, shortest exact
floats), in the order in which they arrive. A query needs an ORDER BY so that equal rows give an equal digest.
"""

import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from core.errors import DataError
from data.config import TableSource
from data.source.readers import Wanted, public_uri, rows_a_chunk

CANONICAL = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "client_encoding": "UTF8",
    # a table without an index is then always read in the order of its pages
    "synchronize_seqscans": "off",
    "max_parallel_workers_per_gather": "0",
}
BATCH_BYTES = 16 << 20


def read_postgres(
    source: TableSource, wanted: Wanted, hashed: Callable[[bytes], Any] | None
) -> Iterator[pa.Table]:
    """Yield chunks with the types of the columns in PostgreSQL. `hashed` is called with the bytes of the
    rows.

    Raises DataError, without the address's password, when the server cannot be reached or returns an error.
    """
    try:
        import psycopg
    except ImportError:
        raise DataError(
            "data.source.kind postgres needs psycopg: pip install 'churn-prediction[postgres]'"
        ) from None
    uri = public_uri(source)
    try:
        with psycopg.connect(_address(source.uri), connect_timeout=30) as connection:
            connection.read_only = True
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            yield from _tables(connection, source, wanted, hashed)
    except psycopg.OperationalError as error:
        raise DataError(
            f"{uri}: {_line(error, source)}; correct data.source.uri or start the server"
        ) from None
    except psycopg.Error as error:
        key = "query" if source.query else "table"
        raise DataError(f"{uri}: {_line(error, source)}; correct data.source.{key}") from None


def _address(uri: str) -> str:
    """Remove the name of the driver, which an address of SQLAlchemy contains."""
    return re.sub(r"^postgres(ql)?\+\w+://", "postgresql://", uri)


def _line(error: Exception, source: TableSource) -> str:
    text = str(error).split("\nLINE ")[0]
    return " ".join(text.split()).replace(source.uri, public_uri(source)).rstrip(".") or type(error).__name__


def _tables(
    connection: Any, source: TableSource, wanted: Wanted, hashed: Callable[[bytes], Any] | None
) -> Iterator[pa.Table]:
    from psycopg import sql

    with connection.cursor() as cursor:
        for name, value in CANONICAL.items():
            cursor.execute("SELECT set_config(%s, %s, true)", (name, value))
        rows = _selected(source)
        cursor.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(rows))
        described = list(cursor.description)
        chosen = wanted.among([column.name for column in described], public_uri(source))
        columns = [described[i] for i in chosen]
        listed = sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
        types = {new: _arrow_type(column) for new, column in zip(chosen.values(), columns, strict=True)}
        copied = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT csv)").format(listed, rows)
        with cursor.copy(copied) as copy:
            yield from _chunks(_batches(copy, hashed), types)


def _selected(source: TableSource) -> Any:
    """The table, or the query as a subquery. The line break ends a comment at the end of the query."""
    from psycopg import sql

    if source.table is not None:
        return sql.Identifier(*source.table.split("."))
    query = (source.query or "").strip().rstrip(";")
    return sql.SQL("({}\n) AS source").format(sql.SQL(query))


def _batches(copy: Any, hashed: Callable[[bytes], Any] | None) -> Iterator[bytes]:
    """Batches of whole rows: COPY sends one row at a time."""
    waiting, size = [], 0
    for row in copy:
        content = bytes(row)
        if hashed is not None:
            hashed(content)
        waiting.append(content)
        size += len(content)
        if size >= BATCH_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _chunks(batches: Iterator[bytes], types: dict[str, pa.DataType]) -> Iterator[pa.Table]:
    rows = rows_a_chunk(len(types))
    names = list(types)
    for content in batches:
        text = pacsv.read_csv(
            io.BytesIO(content),
            read_options=pacsv.ReadOptions(column_names=names, block_size=2 * BATCH_BYTES),
            parse_options=pacsv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        table = pa.table({name: _typed(text[name], kind) for name, kind in types.items()})
        for start in range(0, table.num_rows, rows):
            yield table.slice(start, rows)


_BY_NAME = {
    **dict.fromkeys(("int2", "int4", "int8"), pa.int64()),
    **dict.fromkeys(("float4", "float8"), pa.float64()),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", tz="UTC"),
}


def _arrow_type(column: Any) -> pa.DataType:
    """The Arrow type of a column. Unlisted types are text, as PostgreSQL writes them."""
    from psycopg import postgres

    known = postgres.types.get(column.type_code)
    name = known.name if known else ""
    if name == "numeric":
        whole = column.scale == 0 and column.precision is not None
        return pa.decimal128(38, 0) if whole and column.precision <= 38 else pa.float64()
    return _BY_NAME.get(name, pa.string())


def _typed(text: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Cast a column. Infinite times, times BC and years above 9999 become null."""
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        text = pc.if_else(pc.match_substring_regex(text, r"^\d{4}-[^B]*$"), text, None)
    elif kind == pa.bool_():
        return pc.equal(text, "t")
    if pa.types.is_decimal(kind):
        return pc.if_else(pc.equal(text, "NaN"), None, text).cast(kind)
    if pa.types.is_date(kind):
        return text.cast(pa.timestamp("s")).cast(kind)
    return text.cast(kind)
