"""Access to MLflow by its client, without a process-wide address or an active run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from core.addresses import failure
from core.errors import TrainingError
from training.config import TrainingConfig
from training.quiet import quiet


def client_of(tracking_uri: str) -> Any:
    """An MlflowClient for the runs and registered models at `tracking_uri`. Call it inside of
    `mlflow_errors`, since it creates the tables of a new database."""
    from mlflow import MlflowClient

    # otherwise each download of small files draws a bar over the progress of our commands
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # and a server's address would be printed at the end of each run
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def experiment_of(client: Any, training: TrainingConfig) -> str:
    """The id of `training.experiment`, which is created if it does not exist."""
    found = client.get_experiment_by_name(training.experiment)
    if found is not None:
        return str(found.experiment_id)
    return str(client.create_experiment(training.experiment, artifact_location=training.artifacts_uri))


@contextmanager
def mlflow_errors(uri: str) -> Iterator[None]:
    """Silences MLflow, and converts its errors into a TrainingError of one line, passwords masked."""
    from alembic.util import CommandError  # tables of another version or another program
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError  # MLflow does not convert errors of a damaged database

    try:
        with quiet():
            yield
    except (MlflowException, SQLAlchemyError, CommandError, OSError, ImportError) as error:
        raise TrainingError(failure("MLflow", uri, error)) from None


@contextmanager
def failed_on_error(client: Any, run_id: str) -> Iterator[None]:
    """Marks the run FAILED if the block raises, so that it does not stay RUNNING."""
    try:
        yield
    except BaseException:
        with suppress(Exception):  # the error may come from the tracking server
            client.set_terminated(run_id, "FAILED")
        raise
