"""MLflow's tracking server on PostgreSQL and S3. Clients get artifacts through it and need no key of S3."""

import httpx

from deploy.loopback.object_store import NAME as S3
from deploy.loopback.object_store import client_environment
from deploy.loopback.place import Place, program
from deploy.loopback.postgresql import uri
from deploy.loopback.processes import Launch

NAME = "mlflow"
ARTIFACTS = "s3://churn-artifacts/mlflow"
READY_S, STOP_S = 180.0, 20.0


def prepare(place: Place) -> Launch:
    folder = place.of(NAME)
    folder.mkdir(exist_ok=True, mode=0o700)
    command = [program("mlflow", place.python.parent, package="make install"), "server",
               "--artifacts-destination", ARTIFACTS, "--host", place.host, "--port", str(place.ports[NAME]),
               "--workers", "1"]  # fmt: skip
    environment = {
        **client_environment(place),
        "MLFLOW_BACKEND_STORE_URI": uri(place, "mlflow"),  # not an argument: those are visible to all
        "MLFLOW_S3_ENDPOINT_URL": f"http://{place.address(S3)}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return Launch(command, folder, environment)


def is_ready(place: Place) -> bool:
    try:
        return httpx.get(f"http://{place.address(NAME)}/health", trust_env=False, timeout=5).is_success
    except httpx.TransportError:
        return False


def settle(place: Place) -> None:
    """MLflow makes its tables itself."""
