"""Versions of the records in `data.store` are complete or absent."""

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from churn.settings import load_settings
from core.errors import DataError
from core.workspace import Workspace
from data.config import DataConfig
from data.ingest import ingest
from data.records import remote

NOW = datetime(2026, 11, 27, tzinfo=UTC)


@pytest.fixture
def files(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    source = tmp_path / "orders.csv"
    days = pd.date_range("2026-01-01", periods=50).strftime("%Y-%m-%d")
    rows = pd.DataFrame({"user_id": [f"c{n % 10}" for n in range(50)], "timestamp": days, "amount": 1.0})
    rows.to_csv(source, index=False)
    names = {name: name for name in rows}
    settings = load_settings().data.model_dump()
    given = {"kind": "csv", "uri": str(source), "columns": names}
    return DataConfig(**{**settings, "source": given, "expectations": (), "store": str(tmp_path / "store")})


def version(files: Workspace) -> str:
    return files.data.resolve().name


def test_a_version_without_its_manifest_is_written_again(
    config: DataConfig, files: Workspace, tmp_path: Path
) -> None:
    """As after a copy that was interrupted: the manifest is last."""
    ingest(config, files, NOW)
    remote.publish(config, files)
    manifest = Path(str(config.store)) / version(files) / "manifest.json"
    manifest.unlink()
    with pytest.raises(DataError, match="has no version"):
        remote.fetch(config, Workspace(tmp_path / "there"), version(files))
    assert remote.publish(config, files) and manifest.is_file()


def test_another_content_under_the_hash_is_refused(
    config: DataConfig, files: Workspace, tmp_path: Path
) -> None:
    ingest(config, files, NOW)
    remote.publish(config, files)
    manifest = Path(str(config.store)) / version(files) / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    there = Workspace(tmp_path / "there")
    with pytest.raises(DataError, match="has no version"):
        remote.fetch(config, there, version(files))
    assert not list(there.data.parent.glob("*"))


def test_a_store_that_cannot_be_written_is_one_line(
    config: DataConfig, files: Workspace, tmp_path: Path
) -> None:
    ingest(config, files, NOW)
    (tmp_path / "file").touch()
    there = config.model_copy(update={"store": f"{tmp_path}/file/store"})
    with pytest.raises(DataError, match=r"^data\.store .*; get access, or correct the address$"):
        remote.publish(there, files)
