"""Versions of the records in `data.store`: complete or absent, found by hash, without erased customers."""

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from churn.settings import load_settings
from core.errors import DataError
from core.workspace import Workspace
from data.config import DataConfig
from data.forget import forget_records, forget_stored
from data.ingest import ingest
from data.mask import load_key
from data.records import remote
from data.records.folder import read
from data.records.versions import find
from handlers.identity import pseudonym

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


def test_a_version_comes_back_by_its_hash(config: DataConfig, files: Workspace, tmp_path: Path) -> None:
    ingest(config, files, NOW)
    assert remote.publish(config, files) and not remote.publish(config, files)
    name = version(files)
    assert remote.stored(config) == [name]
    there = Workspace(tmp_path / "there")
    folder = remote.fetch(config, there, name)
    assert find(there, name[:12]) == folder
    assert read(folder / "records").equals(read(files.records))


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


def test_a_forgotten_customer_is_in_no_stored_version(config: DataConfig, files: Workspace) -> None:
    ingest(config, files, NOW)
    remote.publish(config, files)
    name = pseudonym("c3", "string", load_key(config, files))
    assert forget_records(files, [name]) == 5
    assert forget_stored(config, files, [name]) == 1
    assert remote.stored(config) == [version(files)]
    users = [user for file in Path(str(config.store)).rglob("*.parquet") for user in users_of(file)]
    assert users and name not in users


def users_of(file: Path) -> list[str]:
    rows = pd.read_parquet(file)
    return list(rows["user_id"]) if "user_id" in rows else []


def test_a_store_that_cannot_be_written_is_one_line(
    config: DataConfig, files: Workspace, tmp_path: Path
) -> None:
    ingest(config, files, NOW)
    (tmp_path / "file").touch()
    there = config.model_copy(update={"store": f"{tmp_path}/file/store"})
    with pytest.raises(DataError, match=r"^data\.store: .*get access, or correct the address$"):
        remote.publish(there, files)
