"""`churn restore`: writes the state of a backup into the stores of a profile, also of another profile."""

from collections.abc import Mapping
from typing import Any

from pipelines.backup.artifacts import load_artifacts
from pipelines.backup.backup import SCHEMA_VERSION, folders_of, open_vault, topics_of
from pipelines.backup.databases import Database, databases_of
from pipelines.backup.online_values import load_online
from pipelines.backup.remote_folder import load_folder
from pipelines.backup.tables import load_tables
from pipelines.backup.topics import load_topic
from pipelines.backup.vault import BackupError, Vault
from pipelines.backup.workspace_files import is_empty, load_files
from pipelines.context import Context


def restore(context: Context, name: str | None = None, replace: bool = False) -> dict[str, int]:
    """Write everything that the backup has (default: the newest); the number of things in each part.

    Each part replaces the present one as a whole, so it may be repeated after an interruption. Raises
    BackupError when there is no such backup or it is damaged, and for a workspace that has files already
    unless `replace`.
    """
    settings, files, progress = context.settings, context.files, context.progress
    vault = open_vault(settings)
    manifest = vault.manifest(name)
    if manifest["schema_version"] != SCHEMA_VERSION:
        raise BackupError(
            f"{vault.shown}: made by another release; restore with that one, and upgrade after it"
        )
    if not replace and not is_empty(files):
        raise BackupError(f"workspace {files.root}: has files; add --replace, or choose another workspace")
    saved = manifest["saved"]
    written: dict[str, int] = {}
    progress("restoring the workspace")
    written["files"] = load_files(files, saved["files"], vault, manifest["workspace"])
    moves = [
        (str(manifest["artifacts_uri"]).rstrip("/"), settings.training.artifacts_uri.rstrip("/")),
        (str(manifest["workspace"]), str(files.root)),
    ]
    for key, database in databases_of(settings).items():
        progress(f"restoring the database of {key}")
        written[f"rows of {key}"] = _rows(database, saved["databases"].get(key), vault, moves)
    progress("restoring MLflow's artifacts")
    written["artifacts"] = load_artifacts(settings.training, saved.get("artifacts", {}), vault)
    for key, uri in folders_of(settings).items():
        progress(f"restoring {key}")
        written[f"objects of {key}"] = load_folder(key, uri, saved["folders"].get(key, {}), vault)
    progress("restoring online features")
    written["customers online"] = load_online(settings, saved["online"], vault, context.now)
    for topic, client in topics_of(settings).items():
        if topic in saved["topics"]:
            progress(f"restoring topic {topic}")
            written[f"messages of {topic}"] = load_topic(client, topic, saved["topics"][topic], vault)
    return written


def _rows(
    database: Database, saved: Mapping[str, Any] | None, vault: Vault, moves: list[tuple[str, str]]
) -> int:
    if saved is None:
        return 0
    if database.file is not None:
        database.file.parent.mkdir(parents=True, exist_ok=True)
    database.make_tables()
    return load_tables(database.uri, saved, vault, moves)
