"""Finds the records that ingest wrote, and checks that they match its manifest."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pyarrow import ArrowInvalid

from core.errors import DataError, FeatureError
from core.workspace import Workspace
from data.records import folder


def read_json(file: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON file. Raises FeatureError, with the command `remedy`, when it is missing or invalid."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise FeatureError(f"{file}: not there; run `{remedy}` first") from None
    except ValueError:
        raise FeatureError(f"{file}: not JSON; run `{remedy}` again") from None


def read_records(files: Workspace) -> tuple[dict[str, Any], list[Path]]:
    """The manifest and the parts in their order. Raises FeatureError when they do not match or are empty."""
    manifest = read_json(files.manifest, "churn ingest")
    parts = _parts(files)
    try:
        rows = sum(pq.read_metadata(part).num_rows for part in parts)
    except (OSError, ArrowInvalid) as error:
        raise FeatureError(f"{files.records}: {error}; run `churn ingest` again") from None
    if rows != manifest["rows"]:
        raise FeatureError(
            f"{files.records} has {rows} rows, its manifest {manifest['rows']}; run `churn ingest` again"
        )
    if rows == 0:
        raise FeatureError(f"{files.records}: no rows; ingest a source that has some")
    return manifest, parts


def _parts(files: Workspace) -> list[Path]:
    try:
        return folder.parts(files)
    except DataError as error:
        raise FeatureError(str(error)) from None
