"""`churn backup` and `churn restore` on files and SQLite: what comes back, is refused, is encrypted.

tests/deploy/test_production_profile.py has the same with PostgreSQL, Redis, S3 and Kafka.
"""

import os
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from churn.cli import main
from churn.settings import Settings, load_settings
from core.workspace import Workspace, point_to
from pipelines.backup.backup import backup
from pipelines.backup.restore import restore
from pipelines.backup.tables import load_tables, save_tables
from pipelines.backup.vault import BackupError, Vault
from pipelines.backup.workspace_files import load_files, save_files
from pipelines.context import Context
from retraining.ledger import Ledger
from rollout.database.connection import open_database
from rollout.state import Change
from rollout.store import Store
from rollout.targets.target import Candidate
from support.loop_facts import loop_facts
from support.servers.postgres import postgres
from training.registry.mlflow_client import client_of, experiment_of, mlflow_errors

KEY, OTHER_KEY = "a1" * 32, "b2" * 32
NOW = datetime(2026, 11, 27, tzinfo=UTC)
SECRET = b"the key that masks"


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(str(tmp_path / "vault"), KEY)


@pytest.fixture
def files(tmp_path: Path) -> Workspace:
    """A version of the records with a link to it, a secret, a database with a log, and a running server."""
    files = Workspace(tmp_path / "ws")
    version = files.data.with_name("f" * 64)
    version.mkdir(parents=True)
    (version / "manifest.json").write_text("{}")
    os.utime(version, ns=(10**18, 10**18))
    point_to(files.data, version)
    files.mask_key.parent.mkdir(mode=0o700)
    files.mask_key.touch(mode=0o600)
    files.mask_key.write_bytes(SECRET)
    files.model_store.mkdir()
    files.archive_record.write_text(f'{{"path": "{files.model_store}/a.mar", "sha256": "0"}}')
    files.feast.mkdir()
    (files.serving / "logs").mkdir(parents=True)
    (files.serving / "logs" / "server.log").write_text("x")
    files.lock.touch()
    return files


def test_files_come_back_with_links_modes_and_times(files: Workspace, vault: Vault, tmp_path: Path) -> None:
    with closing(sqlite3.connect(files.feast / "online.db")) as open_elsewhere:
        open_elsewhere.execute("PRAGMA journal_mode = WAL")
        open_elsewhere.execute("CREATE TABLE t AS SELECT 42 AS x")
        open_elsewhere.commit()
        saved = save_files(files, vault, [])
    there = Workspace(tmp_path / "there")
    load_files(there, saved, vault, str(files.root))
    assert there.data.is_symlink() and there.manifest.read_text() == "{}"
    assert there.data.resolve().stat().st_mtime_ns == 10**18
    assert there.mask_key.read_bytes() == SECRET
    assert there.mask_key.stat().st_mode & 0o777 == 0o600
    assert there.mask_key.parent.stat().st_mode & 0o777 == 0o700
    assert f'"{there.model_store}/a.mar"' in there.archive_record.read_text()
    assert not there.lock.exists() and not (there.serving / "logs").exists()
    with closing(sqlite3.connect(there.feast / "online.db")) as connection:
        assert connection.execute("SELECT x FROM t").fetchone() == (42,)


def test_secrets_are_readable_with_their_key_alone(files: Workspace, vault: Vault, tmp_path: Path) -> None:
    saved = save_files(files, vault, [])
    stored = [path.read_bytes() for path in (tmp_path / "vault" / "objects").rglob("*") if path.is_file()]
    assert stored and not any(SECRET in content for content in stored)
    there = Workspace(tmp_path / "there")
    with pytest.raises(BackupError, match=r"backup\.key_env: not the key"):
        load_files(there, saved, Vault(vault.uri, OTHER_KEY), str(files.root))
    with pytest.raises(BackupError, match=r"backup\.key_env: its variable is not set"):
        load_files(there, saved, Vault(vault.uri, None), str(files.root))
    assert not there.mask_key.exists() and not there.data.exists(), "a refused restore changed the workspace"


def test_a_damaged_object_is_refused_and_unchanged_content_is_stored_once(
    files: Workspace, vault: Vault, tmp_path: Path
) -> None:
    digest = vault.put(b"content")
    assert Vault(vault.uri, None).put(b"content") == digest
    again = Vault(vault.uri, KEY)
    again.put(b"content")
    assert again.written_bytes == 0
    (place,) = (tmp_path / "vault" / "objects").rglob(digest)
    place.write_bytes(b"Content")
    with pytest.raises(BackupError, match=f"object {digest[:12]} is damaged"):
        vault.get(digest)
    with pytest.raises(BackupError, match="is damaged"):
        vault.get_file(digest, tmp_path / "x")
    with pytest.raises(BackupError, match="64 hexadecimal digits"):
        Vault(vault.uri, "short")


def test_rows_move_between_sqlite_and_postgresql(vault: Vault, tmp_path: Path) -> None:
    """A busy year of rollouts, checks and decisions: read back by the programs that use it."""
    loop_facts(tmp_path)
    source = f"sqlite:///{tmp_path}/rollout.db"
    saved = save_tables(source, vault)
    with postgres() as server:
        target = f"{server}studies"
        open_database(target)
        moved = load_tables(target, saved, vault)
        assert moved == sum(table["rows"] for table in saved["tables"].values()) > 40
        for one, other in zip(Store(source).all("churn"), Store(target).all("churn"), strict=True):
            assert one == other
        mine, theirs = Ledger(source), Ledger(target)
        assert mine.entries("churn") == theirs.entries("churn")
        assert mine.grades("churn") == theirs.grades("churn")
        assert mine.runs("churn") == theirs.runs("churn")
        moved_there = f"{server}mlflow"
        open_database(moved_there)
        assert load_tables(moved_there, saved, vault, [("/m", "/elsewhere")]) == moved
        stable = Store(moved_there).stable("churn")
        assert stable is not None and stable.archive.startswith("/elsewhere/")
        back = f"sqlite:///{tmp_path}/back.db"
        open_database(back)
        assert load_tables(back, save_tables(moved_there, vault), vault, [("/elsewhere", "/m")]) == moved
        assert Store(back).all("churn") == Store(source).all("churn")


def test_a_restore_is_repeated_and_another_history_is_not_replaced(vault: Vault, tmp_path: Path) -> None:
    """The history of rollouts is only appended to, also by a restore."""
    loop_facts(tmp_path)
    source = f"sqlite:///{tmp_path}/rollout.db"
    saved = save_tables(source, vault)
    assert load_tables(source, saved, vault) == load_tables(source, saved, vault)
    other = f"sqlite:///{tmp_path}/other.db"
    Store(other).served_at_once("churn", Change(Candidate("/m/a.mar", "a" * 64, "a"), None, "ada", NOW, "x"))
    with pytest.raises(BackupError, match="another history, which is not replaced; name an empty database"):
        load_tables(other, saved, vault)


def test_tables_of_another_version_are_refused(vault: Vault, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/rollout.db"
    open_database(uri)
    saved = save_tables(uri, vault)
    saved["versions"]["rollout_version"] = [["0001"]]
    with pytest.raises(BackupError, match="its tables have another version"):
        load_tables(uri, saved, vault)


def context(settings: Settings) -> Context:
    return Context(settings, NOW, lambda line: None, "ada")


def settings_of(root: Path, vault: Path) -> Settings:
    return load_settings(overrides=[f"workspace={root}", f"backup.store={vault}"])


def test_a_registry_comes_back_in_another_workspace(
    files: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHURN_BACKUP_KEY", KEY)
    settings = settings_of(files.root, tmp_path / "vault")
    training = settings.training
    with mlflow_errors(training.tracking_uri):
        client = client_of(training.tracking_uri)
        run = client.create_run(experiment_of(client, training)).info.run_id
        client.log_metric(run, "auroc", 0.8)
        client.log_text(run, "a card", "cards/model.md")
        client.create_registered_model("churn")
        client.create_model_version("churn", f"runs:/{run}/cards", run)
        client.set_registered_model_alias("churn", "champion", "1")
    name, counts = backup(context(settings))
    assert counts["artifacts"] == 1 and counts["rows of mlflow"] > 5
    shutil.rmtree(files.root)
    there = settings_of(tmp_path / "there", tmp_path / "vault")
    restore(context(there), name)
    with mlflow_errors(there.training.tracking_uri):
        client = client_of(there.training.tracking_uri)
        assert client.get_model_version_by_alias("churn", "champion").run_id == run
        assert client.get_run(run).data.metrics == {"auroc": 0.8}
        assert client.get_run(run).info.artifact_uri.startswith(f"{tmp_path}/there/")
        card = Path(client.download_artifacts(run, "cards/model.md", str(tmp_path)))
    assert card.read_text() == "a card"
    with pytest.raises(BackupError, match="has files; add --replace"):
        restore(context(there))
    restore(context(there), replace=True)


def test_what_is_missing_is_named_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = ("--set", f"workspace={tmp_path}")
    assert main(["backup", *here]) == 1
    assert "backup.store: not set" in " ".join(capsys.readouterr().err.split())
    assert main(["restore", *here, "--set", f"backup.store={tmp_path}/none"]) == 1
    assert "no backup" in " ".join(capsys.readouterr().err.split())
    server = ("--set", f"backup.store={tmp_path}/v", "--set", "training.tracking_uri=http://127.0.0.1:1")
    assert main(["backup", *here, *server]) == 1
    assert "backup.mlflow_database" in " ".join(capsys.readouterr().err.split())
