"""The folder with the prediction log of a workspace, to which a log in a topic is copied first."""

import os
from pathlib import Path

from core.errors import ConfigError
from handlers.bundle import BundleError
from handlers.records.settings import address_of, kafka_security
from monitoring.topic import copy_topic
from pipelines.context import Stages
from pipelines.services import needed_services


def collected_log(settings: Stages) -> Path:
    """The folder, with all records that are in the topic now where `serving.prediction_log_kafka` names one.

    TLS and SASL are those of the worker's variables CHURN_PREDICTION_LOG_KAFKA_*. Raises ConfigError for
    settings that cannot be used, MonitoringError if the topic cannot be read.
    """
    folder = settings.files.predictions
    address = settings.serving.prediction_log_kafka
    if address is not None:
        copy_topic(*topic_of(address), _types(settings), folder)
    return folder


def topic_of(address: str) -> tuple[str, str, dict[str, str]]:
    """Brokers, topic, and the settings of TLS and SASL of `serving.prediction_log_kafka`.

    Raises ConfigError for settings that cannot be used.
    """
    try:
        return *address_of(address), kafka_security(os.environ)
    except BundleError as error:
        raise ConfigError(str(error)) from None


def _types(settings: Stages) -> dict[str, str]:
    """Name and type of the features of all models in use; those of the settings win."""
    types: dict[str, str] = {}
    for spec in (service.spec for service in reversed(needed_services(settings))):
        types |= {feature.name: feature.dtype for feature in spec.features}
        types |= {ratio.name: "float64" for ratio in spec.derived}
    return types
