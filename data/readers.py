"""One CSV or Parquet file as an Arrow table, with the digest of exactly the bytes that were read."""

import hashlib
import io
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.utils import infer_compression

from data.config import TableSource
from data.errors import DataError

ROWS_A_CHUNK = 500_000
NOT_FOR_READERS = ("decimal", "thousands", "date_format", "storage_options")
"""Options about the cells of our columns, which `parse` reads, and about opening the file."""

ColumnCheck = Callable[[Sequence[str]], list[str]]


def read_file(
    file: BinaryIO, path: str, source: TableSource, shape: str, limit: int | None
) -> tuple[pa.Table, str]:
    """The table's wanted columns under their own names, and the file's sha256."""
    check = _column_check(source, shape)
    options = {name: value for name, value in source.options.items() if name not in NOT_FOR_READERS}
    if source.kind == "parquet":
        content = file.read()  # its index is at the end: it wants random access
        return _read_parquet(content, source, options, check), hashlib.sha256(content).hexdigest()
    options.setdefault("compression", infer_compression(path))
    if options["compression"] == "zip":
        content = file.read()  # so does this one's
        return _read_csv(io.BytesIO(content), options, check, limit), hashlib.sha256(content).hexdigest()
    hashing = _HashingReader(file)
    table = _read_csv(io.BufferedReader(hashing, 1 << 20), options, check, limit)
    while limit is None and hashing.read(1 << 20):
        pass  # an option such as nrows may have stopped the parser early
    return table, hashing.digest.hexdigest()


def public_uri(source: TableSource) -> str:
    """The address as it may be shown and recorded: without passwords and signatures."""
    uri = re.sub(r"//[^/@]*@", "//", source.uri)
    return uri.split("?")[0] if "://" in uri else uri


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """What file systems and parsers raise, as one line with a remedy."""
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]  # s3fs lets it through

    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{uri}: no such file; correct data.source.uri") from None
    except PermissionError:
        raise DataError(f"{uri}: may not be read; ask for access or correct data.source.uri") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{uri}: not {error.encoding} text; set data.source.options.encoding") from None
    except TypeError as error:
        raise DataError(f"{uri}: data.source.options: {_line(error)}; correct or remove it") from None
    except ImportError as error:
        raise DataError(f"{uri}: {_line(error)}") from None
    except (
        OSError,
        EOFError,
        ValueError,
        LookupError,
        zlib.error,
        pa.ArrowException,
        BotoCoreError,
    ) as error:
        raise DataError(f"{uri}: cannot be read: {_line(error)}; correct the file or data.source") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _read_csv(stream: Any, options: dict[str, Any], check: ColumnCheck, limit: int | None) -> pa.Table:
    """Every cell as text, so that nothing is guessed: `007` stays, and a rejected row is kept as written.

    All columns are parsed, then dropped: given `usecols`, pandas would let a row with too many fields pass.
    """
    chunks: list[pa.Table] = []
    for frame in pd.read_csv(stream, dtype="string[pyarrow]", chunksize=ROWS_A_CHUNK, **options):
        if not isinstance(frame.index, pd.RangeIndex):
            raise ValueError("the rows have more fields than the header has names")
        frame.columns = frame.columns.map(str)
        wanted = check(list(frame.columns))
        chunks.append(pa.table({n: pa.array(frame[n], pa.string(), from_pandas=True) for n in wanted}))
        if limit is not None and sum(chunk.num_rows for chunk in chunks) >= limit:
            break
    return pa.concat_tables(chunks)


def _read_parquet(
    content: bytes, source: TableSource, options: dict[str, Any], check: ColumnCheck
) -> pa.Table:
    schema = pq.read_schema(pa.BufferReader(content))
    wanted = check(schema.names)
    for field in (schema.field(name) for name in wanted):
        if pa.types.is_nested(field.type) or pa.types.is_duration(field.type):
            raise DataError(
                f"{public_uri(source)}: column {field.name!r} is {field.type}; make it a number, time or text"
            )
    table = pq.read_table(pa.BufferReader(content), columns=wanted, **options)
    # some writers do not say that their bytes are text
    text = [f.with_type(pa.string()) if pa.types.is_binary(f.type) else f for f in table.schema]
    return table.cast(pa.schema(text))


def _column_check(source: TableSource, shape: str) -> ColumnCheck:
    """Of the names there are, the ones to keep, in their order; DataError for a wanted one that is absent."""
    wanted = {f"columns.{ours}": theirs for ours, theirs in source.columns.items()}
    wanted |= {f"types.{name}": name for name in source.types}
    # without an identifier of transactions, only rows that are equal in every column are the same one
    whole_rows = source.duplicates != "keep" and "transaction_id" not in source.columns

    def check(names: Sequence[str]) -> list[str]:
        for key, name in wanted.items():
            if name not in names:
                raise DataError(
                    f"{public_uri(source)}: no column {name!r}{_did_you_mean(name, names)}"
                    f" for data.source.{key}; there are {', '.join(names)}"
                )
        if len(set(names)) < len(names):
            raise DataError(f"{public_uri(source)}: two columns have one name; there are {', '.join(names)}")
        return [n for n in names if shape == "labelled" or whole_rows or n in wanted.values()]

    return check


def _did_you_mean(name: str, names: Sequence[str]) -> str:
    from difflib import get_close_matches

    folded = {n.casefold(): n for n in names}
    close = get_close_matches(name.casefold(), folded, n=1)
    return f" (did you mean {folded[close[0]]!r}?)" if close else ""


class _HashingReader(io.RawIOBase):
    """Hashes what passes through: digest and rows come from the same bytes, read once."""

    def __init__(self, file: BinaryIO) -> None:
        self.digest = hashlib.sha256()
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        self.digest.update(content)
        return len(content)
