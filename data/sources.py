"""Where customers come from: the CDNOW log in an installed wheel, or a CSV or Parquet table at any URI."""

import hashlib
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
from fsspec.core import url_to_fs

from data.clean import clean
from data.config import CdnowSource, DataConfig, TableSource
from data.errors import DataError
from data.readers import explained, public_uri, read_file

CDNOW = TableSource(
    kind="csv",
    uri="Lifetimes/CDNOW_master.txt",
    columns={
        "user_id": "customer_id",
        "timestamp": "date",
        "amount": "dollar_value",
        "quantity": "number_of_cds",
    },
    user_id_type="integer",
    duplicates="keep",  # equal rows are separate orders of one day
    options={"sep": r"\s+"},
)
CDNOW_SHA256 = "eff6889ed364c5199d6eacbbeb7a6d559971df4406ac876f322c373f00a072ef"

SAMPLED_ROWS = 200_000


@dataclass(frozen=True)
class Raw:
    """A table as it was read, under its own column names; CSV cells are strings."""

    table: pa.Table
    sha256: str
    """Of the file's bytes; of several files, of their digests in the order of their names."""


def as_table(config: DataConfig) -> TableSource:
    """The source as a table with a mapping, which every source is."""
    return CDNOW if isinstance(config.source, CdnowSource) else config.source


def read(config: DataConfig, limit: int | None = None) -> Raw:
    """Read the source whole, or its first `limit` rows (the digest is then of no use).

    Raises DataError for a source that is missing, unreadable, empty, or lacks a column that the config names.
    """
    source = as_table(config)
    uri = public_uri(source)
    with explained(uri):
        filesystem, paths = _files(config)
        tables, digests = [], []
        for path in paths:
            with filesystem.open(path, "rb") as file:
                table, digest = read_file(file, path, source, config.shape, limit)
            tables.append(table)
            digests.append(digest)
        table = pa.concat_tables(tables, promote_options="permissive")
    if table.num_rows == 0:
        raise DataError(f"{uri}: the table is empty; give data.source.uri a table with rows")
    sha256 = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    if source is CDNOW and limit is None and sha256 != CDNOW_SHA256:
        raise DataError(f"{uri}: sha256 is {sha256}, not the known one; reinstall Lifetimes==0.11.3")
    return Raw(table if limit is None else table.slice(0, limit), sha256)


def state(config: DataConfig) -> list[str]:
    """What tells, without reading it, whether the source has changed: a mark a file, from its file system."""
    with explained(public_uri(as_table(config))):
        filesystem, paths = _files(config)
        return [f"{path} {filesystem.ukey(path)}" for path in paths]


def sample_user_ids(config: DataConfig, n: int) -> list[int | str]:
    """Up to `n` raw identifiers of customers in the source's first rows, always the same ones."""
    cleaned = clean(read(config, SAMPLED_ROWS).table, as_table(config), config)
    known: list[int | str] = cleaned.records["user_id"].unique().to_pylist()
    spread = np.linspace(0, len(known) - 1, min(n, len(known)), dtype=int)
    return [known[i] for i in spread]


def _files(config: DataConfig) -> tuple[Any, list[str]]:
    """The file, or all of a pattern, or all below a folder, in the order of their names."""
    source = as_table(config)
    if source is CDNOW:
        return fsspec.filesystem("file"), [str(_cdnow_file())]
    filesystem, path = url_to_fs(source.uri, **source.options.get("storage_options", {}))
    local_folder = "file" in filesystem.protocol and Path(path).is_dir()
    if any(sign in path for sign in "*[") and not filesystem.exists(path):
        paths = sorted(filesystem.glob(path))
    elif source.uri.endswith("/") or local_folder:
        table = re.compile(rf"\.{source.kind}(\.\w+)?$")
        paths = sorted(p for p in filesystem.find(path) if table.search(p))
    else:
        return filesystem, [path]
    if not paths:
        raise DataError(f"{public_uri(source)}: no {source.kind} file is there; correct data.source.uri")
    return filesystem, paths


def _cdnow_file() -> Path:
    """Package data of a wheel whose code is never imported: it predates our Python."""
    try:
        carried = distribution("Lifetimes").files or []
    except PackageNotFoundError:
        raise DataError(
            "the CDNOW log lies in the package Lifetimes: pip install Lifetimes==0.11.3"
        ) from None
    for file in carried:
        if file.name == "CDNOW_master.txt":
            return Path(str(file.locate()))
    raise DataError("the installed Lifetimes has no CDNOW_master.txt; reinstall Lifetimes==0.11.3")
