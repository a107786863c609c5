"""`churn forget`: removes customers from the records, stores and logs of a workspace, and writes a proof.

The customers are first added to the list that later ingests exclude, then removed from every file and store.
After an interruption, the same command continues and ends with the same proof. The proof names the places
that no command can reach.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from core.workspace import Workspace, write_atomically
from data.config import utc_text
from data.forget import forget_records, forget_stored
from data.mask import load_key
from data.records.erasure import Erased, fingerprint, remove_rows
from pipelines.context import Context, Stages
from pipelines.live import masked
from pipelines.streaming import erase as erase_streamed

TEXTS = (".json", ".jsonl", ".html", ".md", ".csv", ".txt")
GONE = "erased"
"""Replaces the masked identifier in a text file."""
NOT_REACHED = (
    "the source itself, which this project only reads",
    "backups, DVC's cache and remote, and files that were written outside of the workspace",
    "models that were trained before: their weights are sums over all customers; train again",
)


@dataclass(frozen=True)
class Proof:
    """The result of a removal, as written to `file`."""

    file: Path
    removed: dict[str, int]
    """Place -> rows or mentions that were there."""
    remaining: int
    """Rows and mentions that were found after the removal; 0 where all went well."""


def forget(
    context: Context,
    user_ids: Sequence[int | str],
    reason: str,
    progress: Callable[[str], None] = lambda message: None,
) -> Proof:
    """Removes the customers `user_ids` (as the source writes them, or masked) and writes the proof.

    Raises ConfigError if the workspace has no data yet, FeatureError or TrainingError if a store cannot be
    reached: the customer is then on the list, and the command has to be given again.
    """
    settings, files = context.settings, context.files
    if not files.manifest.is_file():
        raise ConfigError(f"{files.root}: there are no records; nothing to forget")
    try:
        names = masked(settings, user_ids)
    except ValueError as error:
        raise ConfigError(f"USER_ID: {error}, as the source's identifiers are") from None
    Erased(files.erased, load_key(settings.data, files)).add(names)
    removed: dict[str, int] = {}
    for place, count in _removals(settings, names, progress):
        if count:
            removed[place] = removed.get(place, 0) + count
    remaining = sum(_mentions(files.root, names)) + _online(settings, names)
    return _written(context, names, reason, removed, remaining)


def _removals(
    settings: Stages, names: Sequence[str], progress: Callable[[str], None]
) -> Iterator[tuple[str, int]]:
    files = settings.files
    progress("records")
    yield "records", forget_records(files, names)
    progress("versions of the records in data.store")
    yield "versions in data.store", forget_stored(settings.data, files, names)
    progress("snapshots, scores and prediction logs")
    for file in _files(files.root, (".parquet",)):
        if not file.is_relative_to(files.data.parent):
            yield _place(files, file), remove_rows(file, names)
    for file in _files(files.root, TEXTS):
        yield _place(files, file), _redact(file, names)
    progress("stream and online store")
    yield "stream", erase_streamed(settings, names)
    yield "online store", _remove_online(settings, names)
    progress("runs in MLflow")
    for run, count in _remove_from_runs(settings, names):
        yield f"MLflow run {run}", count


def _remove_online(settings: Stages, names: Sequence[str]) -> int:
    """Removes the customers from the online store, of all feature services; the number of their vectors."""
    from features.erase import erase

    before = _online(settings, names)
    if before:
        erase(settings.features, settings.files, names)
    return before - _online(settings, names)


def _online(settings: Stages, names: Sequence[str]) -> int:
    """The number of vectors of these customers in the online store, of all feature services."""
    from features.erase import count_online

    if not (settings.files.feast / "feature_store.yaml").is_file():
        return 0
    return count_online(settings.features, settings.files, names)


def _remove_from_runs(settings: Stages, names: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Removes test scores from an artifact store outside of the workspace: run id and number of rows."""
    from training.registry.model_registry import Registry

    training, files = settings.training, settings.files
    if Path(training.artifacts_uri.removeprefix("file://")).is_relative_to(files.root):
        return
    if not Registry(training).exists:
        return
    from mlflow.artifacts import download_artifacts

    from training.registry.mlflow_client import client_of, experiment_of, mlflow_errors

    with mlflow_errors(training.tracking_uri):
        client = client_of(training.tracking_uri)
        for run in client.search_runs([experiment_of(client, training)]):
            held = [item.path for item in client.list_artifacts(run.info.run_id, "training")]
            for path in (path for path in held if path.endswith(".parquet")):
                with tempfile.TemporaryDirectory() as scratch:
                    file = Path(download_artifacts(
                        run_id=run.info.run_id, artifact_path=path, dst_path=scratch,
                        tracking_uri=training.tracking_uri,
                    ))  # fmt: skip
                    if count := remove_rows(file, names):
                        client.log_artifact(run.info.run_id, str(file), "training")
                    yield run.info.run_id, count


def _topics(settings: Stages) -> list[str]:
    log, stream = settings.serving.prediction_log_kafka, settings.stream
    found = [] if log is None else [log]
    return found if stream.brokers is None else [*found, stream.topic, stream.dead_letters]


def _redact(file: Path, names: Sequence[str]) -> int:
    content = file.read_bytes()
    count = sum(content.count(name.encode()) for name in names)
    if count:
        for name in names:
            content = content.replace(name.encode(), GONE.encode())
        write_atomically(file, content.decode("utf-8"))
    return count


def _mentions(root: Path, names: Sequence[str]) -> Iterator[int]:
    """Occurrences that remain, found independently by reading every file again."""
    import duckdb

    for file in _files(root, (".parquet",)):
        rows = duckdb.read_parquet(str(file))
        kinds = zip(rows.columns, rows.types, strict=True)
        for name in (name for name, kind in kinds if str(kind) == "VARCHAR"):
            found = rows.select(duckdb.ColumnExpression(name).isin(*map(duckdb.ConstantExpression, names)))
            yield sum(bool(hit) for (hit,) in found.fetchall())
    for file in _files(root, TEXTS):
        content = file.read_bytes()
        yield sum(content.count(name.encode()) for name in names)


def _files(root: Path, endings: Sequence[str]) -> list[Path]:
    """Regular files below the workspace, each once, without the folder of keys."""
    found = (file for file in root.rglob("*") if file.suffix in endings and not file.is_symlink())
    return sorted(file for file in found if file.is_file() and "secrets" not in file.parts)


def _place(files: Workspace, file: Path) -> str:
    """Files of one kind as one place: a customer may be in thousands of log segments."""
    parts = file.relative_to(files.root).parts
    return "/".join(parts if len(parts) < 3 else parts[:2])


def _written(
    context: Context, names: Sequence[str], reason: str, removed: dict[str, int], remaining: int
) -> Proof:
    settings = context.settings
    topics = [f"the Kafka topic {topic}: see to its retention" for topic in _topics(settings)]
    record: dict[str, Any] = {
        "schema_version": 1,
        "when": utc_text(context.as_of),
        "who": context.who,
        "reason": reason,
        "customers": [fingerprint(name) for name in names],
        "removed": removed,
        "remaining": remaining,
        "not_reached": [*NOT_REACHED, *topics],
    }
    stem = f"{context.as_of:%Y%m%dT%H%M%S}"
    folder = context.files.erasures
    number = sum(1 for _ in folder.glob(f"{stem}*.json")) if folder.is_dir() else 0
    file = folder / f"{stem}-{number}.json"
    write_atomically(file, json.dumps(record, indent=2))
    return Proof(file, removed, remaining)
