"""A workspace that was moved, or is mounted at another path in a pod, still has its newest archive."""

import json
from pathlib import Path

import pytest

from core.errors import ServingError
from core.workspace import Workspace
from pipelines.live import archive_record, newest_archive


def packaged(files: Workspace) -> Path:
    archive = files.model_store / "churn-a1b2c3.mar"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"archive")
    record = {"path": str(archive), "sha256": "0" * 64, "version": "a1b2c3"}
    files.archive_record.write_text(json.dumps(record))
    return archive


def test_the_archive_is_found_where_it_was_packaged_and_where_the_workspace_is_now(tmp_path: Path) -> None:
    before = Workspace(tmp_path / "before")
    assert packaged(before) == newest_archive(before)
    after = Workspace(before.root.rename(tmp_path / "after"))
    assert newest_archive(after) == after.model_store / "churn-a1b2c3.mar"
    assert archive_record(after)["version"] == "a1b2c3"


def test_an_archive_that_is_nowhere_keeps_the_name_that_was_recorded(tmp_path: Path) -> None:
    files = Workspace(tmp_path)
    with pytest.raises(ServingError, match="run `churn package` first"):
        newest_archive(files)
    archive = packaged(files)
    archive.unlink()
    assert newest_archive(files) == archive
