"""A run that could not be written completely is FAILED; none stays RUNNING."""

from pathlib import Path

import pytest

from training.config import TrainingConfig
from training.registry.mlflow_client import client_of, experiment_of, failed_on_error


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_run_that_breaks_off_is_failed(tmp_path: Path, error: BaseException) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = client_of(uri)
    training = TrainingConfig(tracking_uri=uri, artifacts_uri=str(tmp_path / "artifacts"))
    run = client.create_run(experiment_of(client, training)).info.run_id

    with pytest.raises(type(error)), failed_on_error(client, run):
        raise error

    assert client.get_run(run).info.status == "FAILED"
