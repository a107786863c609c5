"""The variables that the production profile and its commands read, with the addresses of this machine."""

import shlex
from collections.abc import Mapping

from core.private_file import make_private
from deploy.loopback import broker, mlflow_server, object_store, postgresql, redis_server
from deploy.loopback.place import USER, Place


def variables(place: Place) -> dict[str, str]:
    """Variable -> value."""
    return {
        "CHURN_WORKSPACE": str(place.folder / "workspace"),
        "CHURN_MASK_KEY": place.passwords["mask"],
        "CHURN_SOURCE": postgresql.uri(place, "shop"),
        "CHURN_DATA_STORE": "s3://churn-data/records",
        "CHURN_REDIS": redis_server.connection_string(place),
        "CHURN_FEAST_REGISTRY": postgresql.uri(place, "feast"),
        "MLFLOW_TRACKING_URI": f"http://{place.address(mlflow_server.NAME)}",
        # a client's default is minutes of retries before it reports that the server is away
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
        "CHURN_ARTIFACTS": "mlflow-artifacts:/churn-prediction",
        "CHURN_MLFLOW_DATABASE": postgresql.uri(place, "mlflow"),
        "CHURN_OPTUNA_STORAGE": postgresql.uri(place, "optuna"),
        "CHURN_ROLLOUT_TARGET": "envoy",
        "CHURN_ROLLOUT_DATABASE": postgresql.uri(place, "rollout"),
        "CHURN_MODEL_STORE": "s3://churn-models/churn",
        "CHURN_PROMETHEUS": "http://127.0.0.1:9090",  # read on a cluster only
        "CHURN_PREDICTION_TOPIC": f"{place.address(broker.NAME)}/{broker.PREDICTIONS}",
        **sasl("CHURN_PREDICTION_LOG_KAFKA", place),
        **sasl("CHURN_STREAM_KAFKA", place),
        "CHURN_STREAM_BROKERS": place.address(broker.NAME),
        "CHURN_STREAM_STATE": postgresql.uri(place, "stream"),
        "CHURN_BACKUP": "s3://churn-backup/churn",
        "CHURN_BACKUP_KEY": place.passwords["backup"],
        **object_store.client_environment(place),
    }


def sasl(prefix: str, place: Place) -> dict[str, str]:
    """The variables for TLS and SASL of a client of Kafka."""
    return {
        f"{prefix}_SECURITY": "sasl_ssl",
        f"{prefix}_CA": str(place.certificate),
        f"{prefix}_USER": USER,
        f"{prefix}_PASSWORD": place.passwords[broker.NAME],
    }


def write(place: Place) -> None:
    """Write them to `place.environment` for `. FILE` of a shell, with mode 600."""
    place.environment.unlink(missing_ok=True)
    make_private(place.environment, text(variables(place)))


def text(values: Mapping[str, str]) -> str:
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())
