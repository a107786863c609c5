"""Shared by the readers of all kinds of sources: addresses, errors, the choice of columns, the digest."""

import hashlib
import io
import re
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa

from core.errors import DataError
from data.config import TableSource

ROWS_A_CHUNK = 500_000
CELLS_A_CHUNK = 10_000_000
"""Upper bound on the cells of a chunk, so a chunk of a wide table has fewer rows."""
READ_BYTES = 1 << 20
CELL_OPTIONS = ("decimal", "thousands", "date_format", "storage_options")
"""Options for parsing cells (data/cell/parse.py) and for opening the file, not for the reader."""

Digest = Callable[[bytes], None]
"""Called with the bytes of the source as they are read."""


def reader_options(source: TableSource) -> dict[str, Any]:
    return {name: value for name, value in source.options.items() if name not in CELL_OPTIONS}


def rows_a_chunk(columns: int) -> int:
    return max(1, min(ROWS_A_CHUNK, CELLS_A_CHUNK // max(1, columns)))


def public_uri(source: TableSource) -> str:
    """The address without passwords and signatures, for messages and records."""
    uri = source.uri
    if source.kind == "postgres":
        return _public_connection(uri) + (f" table {source.table}" if source.table else "")
    uri = re.sub(r"//[^/]*@", "//", uri)
    return uri.split("?")[0] if "://" in uri else uri


def _public_connection(uri: str) -> str:
    """The public form of `postgresql://me:secret@host/name?sslmode=require` or `host=... password=...`."""
    if "://" in uri:
        return re.sub(r"//.*@", "//", uri).split("?")[0]
    shown = dict(re.findall(r"(host|port|dbname)\s*=\s*([^\s']+)", uri))
    port = f":{shown['port']}" if "port" in shown else ""
    return f"postgresql://{shown.get('host', '')}{port}/{shown.get('dbname', '')}"


@contextmanager
def data_errors(uri: str) -> Iterator[None]:
    """Convert errors of file systems and parsers to a DataError of one line with a remedy."""
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]  # s3fs does not convert it

    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{uri}: no such file; correct data.source.uri") from None
    except PermissionError:
        raise DataError(f"{uri}: may not be read; ask for access or correct data.source.uri") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{uri}: not {error.encoding} text; set data.source.options.encoding") from None
    except pa.ArrowTypeError as error:  # it is also a TypeError, so it comes first
        raise DataError(f"{uri}: cannot be read: {_line(error)}; correct the file or data.source") from None
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


@dataclass(frozen=True)
class Wanted:
    """The columns of a table that are read."""

    names: Mapping[str, str]
    """Column -> the reason why it is read: a setting, or the features."""
    others: bool = False
    """Whether the other columns are read too."""

    def among(self, names: Sequence[str], uri: str) -> dict[int, str]:
        """Position -> name of the columns to read, in the table's order.

        Blanks around a name are ignored, unless a setting contains them. Raises DataError that lists all
        missing columns, and for a name that two columns have.
        """
        spelled = [name if name in self.names else name.strip() for name in names]
        if missing := {name: key for name, key in self.names.items() if name not in spelled}:
            raise DataError(f"{uri}: {_missing(missing, spelled)}; there are {', '.join(spelled)}")
        chosen = {i: name for i, name in enumerate(spelled) if self.others or name in self.names}
        if twice := sorted({name for name in chosen.values() if spelled.count(name) > 1}):
            raise DataError(
                f"{uri}: two columns have the name {twice[0]!r}; rename one of them in the file;"
                f" there are {', '.join(spelled)}"
            )
        return chosen


def _missing(missing: Mapping[str, str], names: Sequence[str]) -> str:
    return ", ".join(
        f"no column {name!r}{_did_you_mean(name, names)} for {key}" for name, key in missing.items()
    )


def _did_you_mean(name: str, names: Sequence[str]) -> str:
    from difflib import get_close_matches

    folded = {n.casefold(): n for n in names}
    close = get_close_matches(name.casefold(), folded, n=1)
    return f" (did you mean {folded[close[0]]!r}?)" if close else ""


def with_partitions(table: pa.Table, partitions: Mapping[str, str | None], rows: int) -> pa.Table:
    """Append the partition columns of the file's path to the columns of the file."""
    values = {name: pa.repeat(pa.scalar(value, pa.string()), rows) for name, value in partitions.items()}
    return pa.table({**dict(zip(table.column_names, table.columns, strict=True)), **values})


def partitions_to_read(
    partitions: Mapping[str, str | None], names: Collection[str], wanted: Wanted
) -> dict[str, str | None]:
    """The partition columns that are wanted and that the file does not contain."""
    return {
        name: value
        for name, value in partitions.items()
        if name not in names and (wanted.others or name in wanted.names)
    }


class HashingReader(io.RawIOBase):
    """Hashes the bytes that are read, so that digest and rows come from the same bytes, read once."""

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

    def exhaust(self) -> str:
        """Read the rest of the file, which a parser may have skipped; return the sha256 of the whole file."""
        while self.read(READ_BYTES):
            pass
        return self.digest.hexdigest()


def sha256_of(file: BinaryIO) -> str:
    """The sha256 of a file that is read in random order afterwards. The file is rewound to its beginning."""
    file.seek(0)
    digest = hashlib.sha256()
    while content := file.read(READ_BYTES):
        digest.update(content)
    file.seek(0)
    return digest.hexdigest()
