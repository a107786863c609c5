"""The databases of a profile, and how the program that owns each one makes its tables.

Feast's registry is not one of them: it is made from the spec (ADR 4).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.backup.vault import BackupError
from pipelines.context import Stages
from pipelines.streaming import is_configured, streaming


@dataclass(frozen=True)
class Database:
    uri: str
    make_tables: Callable[[], None]
    """Makes or migrates the tables; harmless when they are there."""

    @property
    def file(self) -> Path | None:
        """The file, if it is SQLite."""
        path = self.uri.removeprefix("sqlite:///")
        return None if path == self.uri else Path(path)

    @property
    def exists(self) -> bool:
        """Whether there may be rows: a file of SQLite that nothing has used yet does not exist."""
        return self.file is None or self.file.is_file()


def databases_of(settings: Stages) -> Mapping[str, Database]:
    """Name -> database. Raises BackupError when MLflow's database is behind a server and not configured."""
    mlflow = settings.backup.mlflow_database or settings.training.tracking_uri
    if mlflow.startswith(("http:", "https:")):
        raise BackupError(
            "backup.mlflow_database: training.tracking_uri is a server; give the address of its database"
        )
    found = {
        "mlflow": Database(mlflow, lambda: _make_mlflow(mlflow, settings.training.artifacts_uri)),
        "optuna": Database(settings.tuning.storage, lambda: _make_optuna(settings)),
        "rollout": Database(settings.rollout.database, lambda: _make_rollout(settings)),
    }
    if is_configured(settings):
        found["stream"] = Database(settings.stream.state, lambda: _make_stream(settings))
    return found


def _make_mlflow(uri: str, artifacts: str) -> None:
    from training.registry.mlflow_client import mlflow_errors

    with mlflow_errors(uri):
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(uri, artifacts)  # type: ignore[no-untyped-call]


def _make_optuna(settings: Stages) -> None:
    from training.tuning.slots import open_storage, storage_errors

    with storage_errors(settings.tuning.storage):
        open_storage(settings.tuning)


def _make_stream(settings: Stages) -> None:
    with streaming(settings):
        pass


def _make_rollout(settings: Stages) -> None:
    from pipelines.rollout import open_store

    open_store(settings)
