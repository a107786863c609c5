"""The evidence of a run: tables from which all of its measurements and findings can be derived again.

A folder has one file a table, `<name>.parquet`, and `evidence.json` with the sha256 of each file and the
facts of the run. The sha256 of `evidence.json` identifies the evidence. It is stored in the database with the
run. Equal tables and facts give equal bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import MonitoringError
from core.workspace import fresh_directory

INDEX = "evidence.json"


@dataclass(frozen=True)
class Evidence:
    """Small tables of counts, without identifiers of customers, and facts in JSON's types."""

    tables: Mapping[str, pd.DataFrame]
    facts: Mapping[str, Any]


def write_evidence(folder: Path, evidence: Evidence) -> str:
    """Write the folder, replacing an earlier one, and return the sha256 of its index."""
    with fresh_directory(folder) as fresh:
        for name, table in evidence.tables.items():
            pq.write_table(pa.Table.from_pandas(table, preserve_index=False), fresh / f"{name}.parquet")
        files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(fresh.iterdir())}
        index = json.dumps({"files": files, "facts": dict(evidence.facts)}, indent=2, sort_keys=True)
        (fresh / INDEX).write_text(index + "\n", encoding="utf-8")
        _replace(folder, fresh)
    return hashlib.sha256((folder / INDEX).read_bytes()).hexdigest()


def read_evidence(folder: Path, sha256: str) -> Evidence:
    """Read the evidence of a run.

    Raises MonitoringError when it is missing or has other bytes than those that the run wrote.
    """
    try:
        content = (folder / INDEX).read_bytes()
        index = json.loads(content)
        tables = {}
        for name, expected in index["files"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
                raise MonitoringError(f"{folder / name}: changed since the run; run `churn monitor` again")
            tables[name.removesuffix(".parquet")] = pd.read_parquet(folder / name)
    except FileNotFoundError as error:
        raise MonitoringError(f"{error.filename}: not there; run `churn monitor` again") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise MonitoringError(f"{folder / INDEX}: not the evidence of this run; run `churn monitor` again")
    return Evidence(tables, index["facts"])


def _replace(folder: Path, fresh: Path) -> None:
    """Put `fresh` in the place of `folder`. An old folder is moved out of the way first and then removed."""
    import shutil

    if folder.exists():
        old = fresh.with_name(f"{fresh.name}.old")
        folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        fresh.rename(folder)
