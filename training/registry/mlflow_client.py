"""How MLflow is reached: by the client alone, without a process-wide address or an active run."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from data.errors import TrainingError
from training.addresses import failure
from training.config import TrainingConfig
from training.quiet import quiet


def client_of(tracking_uri: str) -> Any:
    """An MlflowClient whose runs and registered models are at `tracking_uri`. Call it inside of `reaching`:
    on a new database it makes the tables."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def experiment_of(client: Any, training: TrainingConfig) -> str:
    """The id of `training.experiment`, which is made when it is not there."""
    found = client.get_experiment_by_name(training.experiment)
    if found is not None:
        return str(found.experiment_id)
    return str(client.create_experiment(training.experiment, artifact_location=training.artifacts_uri))


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Silences MLflow, and turns what it raises into a TrainingError of one line, passwords masked."""
    from alembic.util import CommandError  # the tables are another version's, or another program's
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError  # MLflow lets through what a damaged database says

    try:
        with quiet():
            yield
    except (MlflowException, SQLAlchemyError, CommandError, OSError, ImportError) as error:
        raise TrainingError(failure("MLflow", uri, error)) from None


@contextmanager
def failed_on_error(client: Any, run_id: str) -> Iterator[None]:
    """Marks the run FAILED when what is done for it raises, so that none stays RUNNING for ever."""
    try:
        yield
    except BaseException:
        with suppress(Exception):  # the tracking server may be what has failed
            client.set_terminated(run_id, "FAILED")
        raise
