"""`churn backup`: saves all state of a profile, so that `churn restore` brings back the same answers.

Databases are first: what their rows refer to (archives, artifacts, versions of the records) is written before
the row and never changed, so it is there when the files are saved after them.
"""

import os
from collections.abc import Mapping
from typing import Any

from pipelines.backup.artifacts import save_artifacts
from pipelines.backup.databases import databases_of
from pipelines.backup.online_values import save_online
from pipelines.backup.remote_folder import save_folder
from pipelines.backup.tables import save_tables
from pipelines.backup.topics import save_topic
from pipelines.backup.vault import BackupError, Vault
from pipelines.backup.workspace_files import save_files
from pipelines.code import git_commit
from pipelines.context import Context, Stages
from pipelines.streaming import security

SCHEMA_VERSION = 1


def backup(context: Context) -> tuple[str, dict[str, int]]:
    """Save all state; return the name of the backup and, for each part of it, the number of things in it.

    Raises BackupError when a store cannot be read. Then there is no new backup.
    """
    settings, files, progress = context.settings, context.files, context.progress
    vault = open_vault(settings)
    databases = databases_of(settings)
    saved: dict[str, Any] = {"databases": {}, "folders": {}, "topics": {}}
    for name, database in databases.items():
        if database.exists:
            progress(f"saving the database of {name}")
            saved["databases"][name] = save_tables(database.uri, vault)
    for key, uri in folders_of(settings).items():
        progress(f"saving {key}")
        saved["folders"][key] = save_folder(key, uri, vault)
    if "mlflow" in saved["databases"]:
        progress("saving MLflow's artifacts")
        saved["artifacts"] = save_artifacts(settings.training, vault)
    progress("saving the workspace")
    saved["files"] = save_files(
        files, vault, [one.file for one in databases.values() if one.file is not None]
    )
    progress("saving online features")
    saved["online"] = save_online(settings.features, files, vault)
    for topic, client in topics_of(settings).items():
        progress(f"saving topic {topic}")
        saved["topics"][topic] = save_topic(client, topic, vault)
    name = f"{context.as_of:%Y-%m-%dT%H-%M-%S-%fZ}"
    facts = {
        "schema_version": SCHEMA_VERSION,
        "made": context.as_of.isoformat(),
        "who": context.who,
        "code": git_commit(),
        "workspace": str(files.root),
        "artifacts_uri": settings.training.artifacts_uri,
    }
    vault.write_manifest(name, {**facts, "saved": saved})
    return name, {**counts(saved), "bytes written": vault.written_bytes}


def counts(saved: Mapping[str, Any]) -> dict[str, int]:
    """The number of things in each part of a backup."""
    rows = {
        f"rows of {name}": sum(table["rows"] for table in database["tables"].values())
        for name, database in saved["databases"].items()
    }
    topics = {
        f"messages of {name}": sum(part["messages"] for part in topic["partitions"])
        for name, topic in saved["topics"].items()
    }
    return {
        **rows,
        **{f"objects of {key}": len(found) for key, found in saved["folders"].items()},
        "artifacts": len(saved.get("artifacts", {})),
        "files": sum(entry["kind"] == "file" for entry in saved["files"]),
        "customers online": saved["online"]["customers"],
        **topics,
    }


def open_vault(settings: Stages) -> Vault:
    """The store of backups. Raises BackupError when `backup.store` is not set or cannot be used."""
    config = settings.backup
    if config.store is None:
        raise BackupError("backup.store: not set; give a path or a URI such as s3://backup/churn")
    return Vault(config.store, os.environ.get(config.key_env))


def folders_of(settings: Stages) -> dict[str, str]:
    """Setting -> URI of a store that is not in the workspace."""
    named = {"rollout.store": settings.rollout.store, "data.store": settings.data.store}
    return {key: uri for key, uri in named.items() if uri is not None}


def topics_of(settings: Stages) -> dict[str, Mapping[str, str]]:
    """Topic -> settings of a client, for those that `serving` and `stream` name."""
    from handlers.records.settings import kafka_security

    found: dict[str, Mapping[str, str]] = {}
    if (address := settings.serving.prediction_log_kafka) is not None:
        brokers, _, topic = address.partition("/")
        found[topic] = _client(brokers, kafka_security(os.environ))
    if settings.stream.brokers is not None:
        client = _client(settings.stream.brokers, security())
        found |= {settings.stream.topic: client, settings.stream.dead_letters: client}
    return found


def _client(brokers: str, safe: Mapping[str, str]) -> Mapping[str, str]:
    return {"bootstrap.servers": brokers, "log_level": "2", **safe}
