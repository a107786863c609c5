"""Reads Parquet files in batches of rows, with one schema for all files, and identifiers in bytes as text."""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.errors import DataError
from data.config import TableSource
from data.source.content import FIRST_BYTES, refuse_other_kind
from data.source.readers import (
    Wanted,
    data_errors,
    partitions_to_read,
    public_uri,
    reader_options,
    rows_a_chunk,
    sha256_of,
    with_partitions,
)
from data.source.source_files import SourceFile

BUFFER_BYTES = 1 << 20
"""Bytes of a column that are read at once, so that a row group of 70 million rows fits into memory."""


def read_parquet(
    files: Sequence[SourceFile], source: TableSource, wanted: Wanted, digests: list[str] | None
) -> Iterator[pa.Table]:
    """Yield chunks of one schema. Each file's sha256 is appended to `digests` before its first chunk.

    Raises DataError for a column that is nested, or whose types in two files have no common type.
    """
    uri = public_uri(source)
    schema = _common_schema(files, source, wanted)
    for file in files:
        with data_errors(_named(file, files, uri)), file.open() as opened:
            if digests is not None:
                digests.append(sha256_of(opened))
            for table in _tables(opened, file, source, wanted):
                yield _cast(table, schema)


def _named(file: SourceFile, files: Sequence[SourceFile], uri: str) -> str:
    return uri if len(files) == 1 else f"{uri}: {file.name}"


def _tables(opened: BinaryIO, file: SourceFile, source: TableSource, wanted: Wanted) -> Iterator[pa.Table]:
    uri = public_uri(source)
    parquet = _parquet_file(opened, source, uri)
    available = parquet.schema_arrow.names
    chosen, partitions = _chosen(available, file, wanted, uri)
    columns = [available[i] for i in chosen]
    for batch in parquet.iter_batches(batch_size=rows_a_chunk(len(columns)), columns=columns):
        plain = {
            new: _plain(batch.column(old), old, uri)
            for old, new in zip(columns, chosen.values(), strict=True)
        }
        yield with_partitions(pa.table(plain), partitions, batch.num_rows)


def _parquet_file(opened: BinaryIO, source: TableSource, uri: str) -> pq.ParquetFile:
    first = opened.read(FIRST_BYTES)
    opened.seek(0)
    refuse_other_kind(first, "parquet", uri)
    options = {"buffer_size": BUFFER_BYTES, "coerce_int96_timestamp_unit": "us", **reader_options(source)}
    return pq.ParquetFile(opened, **options)


def _chosen(
    names: Sequence[str], file: SourceFile, wanted: Wanted, uri: str
) -> tuple[dict[int, str], dict[str, str | None]]:
    partitions = partitions_to_read(file.partitions, names, wanted)
    chosen = wanted.among([*names, *partitions], uri)
    return {i: name for i, name in chosen.items() if i < len(names)}, partitions


def _common_schema(files: Sequence[SourceFile], source: TableSource, wanted: Wanted) -> pa.Schema:
    """The schema of the columns that are read, in the order of the first file that contains them."""
    uri = public_uri(source)
    types: dict[str, tuple[pa.DataType, str]] = {}
    for file in files:
        with data_errors(_named(file, files, uri)), file.open() as opened:
            schema = _parquet_file(opened, source, uri).schema_arrow
            chosen, partitions = _chosen(schema.names, file, wanted, uri)
            found = {new: _plain_type(schema.field(old).type, new, uri) for old, new in chosen.items()}
        for name, kind in {**found, **dict.fromkeys(partitions, pa.string())}.items():
            before, where = types.get(name, (kind, file.name))
            common = _common_type(before, kind)
            if common is None:
                raise DataError(
                    f"{uri}: column {name!r} is {before} in {where} but {kind} in {file.name};"
                    " write it with one type"
                )
            types[name] = (common, where)
    return pa.schema([(n, pa.string() if kind == pa.null() else kind) for n, (kind, _) in types.items()])


def _plain_type(kind: pa.DataType, name: str, uri: str) -> pa.DataType:
    """The type as which a column is read. Raises DataError when it is not a number, time or text."""
    types = pa.types
    if types.is_dictionary(kind):
        return _plain_type(kind.value_type, name, uri)
    if _is_uuid(kind) or any(is_text(kind) for is_text in _TEXT):
        return pa.string()
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_type(kind.storage_type, name, uri)
    if types.is_nested(kind) or types.is_duration(kind) or types.is_interval(kind):
        raise DataError(f"{uri}: column {name!r} is {kind}; make it a number, time or text")
    return kind


_TEXT = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary),
)


def _is_uuid(kind: pa.DataType) -> bool:
    return bool(getattr(kind, "extension_name", None) == "arrow.uuid" or kind == pa.binary(16))


def _plain(column: pa.Array, name: str, uri: str) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_uuid(column.type):
        return _uuid_texts(column.storage if isinstance(column, pa.ExtensionArray) else column)
    if isinstance(column, pa.ExtensionArray):
        return _plain(column.storage, name, uri)
    kind = _plain_type(column.type, name, uri)
    try:
        return column.cast(kind)  # some writers store text as bytes
    except pa.ArrowInvalid:
        raise DataError(
            f"{uri}: column {name!r} is {column.type}, and its bytes are no UTF-8 text;"
            " write it as text or as a number"
        ) from None


def _uuid_texts(column: pa.Array) -> pa.Array:
    """`550e8400-e29b-41d4-a716-446655440000`: hexadecimal digits of 16 bytes, in groups."""
    present = column.drop_null()
    first, rows = present.offset * 16, len(present)
    content = present.buffers()[1].to_pybytes()[first : first + rows * 16] if rows else b""
    ends = np.arange(0, 32 * rows + 1, 32, dtype=np.int32)
    texts = pa.StringArray.from_buffers(rows, pa.py_buffer(ends), pa.py_buffer(content.hex().encode()))
    grouped = pc.replace_substring_regex(texts, r"^(.{8})(.{4})(.{4})(.{4})(.{12})$", r"\1-\2-\3-\4-\5")
    return pc.replace_with_mask(pa.nulls(len(column), pa.string()), column.is_valid(), grouped)


def _common_type(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """A type that can represent the values of both; None when there is none."""
    types = pa.types
    if first == second or second == pa.null():
        return first
    if first == pa.null():
        return second
    both = (first, second)
    if all(types.is_integer(kind) for kind in both):
        return pa.int64()
    if all(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) for kind in both):
        return pa.float64()
    if all(types.is_integer(kind) or types.is_string(kind) for kind in both):
        return pa.string()  # text preserves all digits of a number
    if all(types.is_timestamp(kind) or types.is_date(kind) for kind in both):
        zones = {getattr(kind, "tz", None) is None for kind in both}
        return pa.timestamp("us", None if zones == {True} else "UTC") if len(zones) == 1 else None
    return None


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Raises ArrowInvalid for a number that the common type cannot represent exactly."""
    columns = []
    for name, kind in zip(schema.names, schema.types, strict=True):
        if name not in table.column_names:
            columns.append(pa.chunked_array([pa.nulls(table.num_rows, kind)]))
        else:
            columns.append(table[name].cast(kind, safe=not pa.types.is_timestamp(kind)))
    return pa.table(columns, schema=schema)
