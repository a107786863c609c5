"""Versions of the records in `data.store`: they come back to the bit, and an erasure reaches them."""

import hashlib
import shutil
from pathlib import Path

import pytest

from core.errors import DataError
from core.workspace import Workspace
from data.config import DataConfig
from data.forget import forget_records
from data.records.remote import fetch, publish, withdraw
from data.records.versions import find, versions
from handlers.identity import mask
from support.data_tables import KEY, Configure, Ingest

FIRST = "customer,when,paid\nann,2025-01-01,5\nbob,2025-01-02,7\ncid,2025-01-03,9\n"


@pytest.fixture
def stored(configure: Configure, run: Ingest, files: Workspace, tmp_path: Path) -> DataConfig:
    """Two versions, both published."""
    for table in (FIRST, FIRST + "bob,2025-02-01,3\n"):
        config = configure(table).model_copy(update={"store": str(tmp_path / "store")})
        run(config)
        assert publish(config, files)
    return config


def content(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    }


def test_a_version_is_published_once_and_comes_back_to_the_bit(stored: DataConfig, files: Workspace) -> None:
    assert not publish(stored, files), "it is there already"
    old = next(version for version in versions(files) if not version.current)
    before = content(old.folder)
    shutil.rmtree(old.folder)
    with pytest.raises(DataError):
        find(files, old.sha256)
    assert content(fetch(stored, files, old.sha256)) == before == content(find(files, old.sha256))


def test_an_erasure_leaves_no_version_with_the_customer(
    stored: DataConfig, files: Workspace, tmp_path: Path
) -> None:
    assert len(list((tmp_path / "store").iterdir())) == 2
    assert forget_records(files, [mask("bob", KEY.encode())]) == 2
    assert withdraw(stored, files) == 2 and publish(stored, files)
    (left,) = (tmp_path / "store").iterdir()
    assert content(left) == content(files.data.resolve())
    assert withdraw(stored, files) == 0
