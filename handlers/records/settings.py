"""Opens the prediction log that the worker's environment names.

| variable | |
|---|---|
| CHURN_PREDICTION_LOG, ..._WINDOW_S, ..._KAFKA | see handlers/settings.py |
| ..._KAFKA_SECURITY | plaintext (the default), ssl, sasl_ssl or sasl_plaintext |
| ..._KAFKA_CA | PEM file of trusted authorities |
| ..._KAFKA_CERTIFICATE, ..._KAFKA_KEY | PEM files of the worker's certificate and its key |
| ..._KAFKA_MECHANISM | SCRAM-SHA-512 (the default), SCRAM-SHA-256 or PLAIN |
| ..._KAFKA_USER | the user of SASL |
| ..._KAFKA_PASSWORD, ..._KAFKA_PASSWORD_FILE | the password, or a file that contains it |
"""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from handlers.bundle import BundleError
from handlers.records.kafka import KafkaTopic
from handlers.records.log import PredictionLog
from handlers.records.record import Origin
from handlers.records.segments import ParquetSegments
from handlers.secret import secret
from handlers.settings import read_settings, variable_of

FOLDER, KAFKA = variable_of("prediction_log_folder"), variable_of("prediction_log_kafka")
SECURITY = ("plaintext", "ssl", "sasl_ssl", "sasl_plaintext")
MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
FILES = {"CA": "ssl.ca.location", "CERTIFICATE": "ssl.certificate.location", "KEY": "ssl.key.location"}


def open_log(environment: Mapping[str, str], origin: Origin) -> PredictionLog | None:
    """The log that the environment names; None where it names none.

    Raises BundleError, with the name of the variable, if both are named or the one cannot be used.
    """
    settings = read_settings(environment)
    folder, kafka = settings.prediction_log_folder, settings.prediction_log_kafka
    if folder and kafka:
        raise BundleError(f"{FOLDER} and {KAFKA}: set one of them")
    if folder:
        path = _writable(Path(folder))
        return PredictionLog(lambda: ParquetSegments(path, settings.prediction_log_window_s), origin)
    if kafka:
        brokers, topic = address_of(kafka)
        security = kafka_security(environment)
        return PredictionLog(lambda: KafkaTopic(brokers, topic, security), origin)
    return None


def kafka_security(environment: Mapping[str, str], prefix: str = KAFKA) -> dict[str, str]:
    """librdkafka's settings for TLS and SASL, from the variables that begin with `prefix`.

    Raises BundleError for settings that contradict each other.
    """
    security = environment.get(f"{prefix}_SECURITY") or "plaintext"
    if security not in SECURITY:
        raise BundleError(f"{prefix}_SECURITY: expected one of {', '.join(SECURITY)}, found {security!r}")
    tls, sasl = security in ("ssl", "sasl_ssl"), security.startswith("sasl_")
    settings = {"security.protocol": security}
    for name, setting in FILES.items():
        if file := environment.get(f"{prefix}_{name}"):
            if not tls:
                raise BundleError(f"{prefix}_{name}: {prefix}_SECURITY is {security}; set ssl or sasl_ssl")
            if not os.access(file, os.R_OK):
                raise BundleError(f"{prefix}_{name}: {file} cannot be read")
            settings[setting] = file
    if (FILES["CERTIFICATE"] in settings) != (FILES["KEY"] in settings):
        raise BundleError(f"{prefix}_CERTIFICATE and {prefix}_KEY: set both or none")
    user, password = environment.get(f"{prefix}_USER"), secret(environment, f"{prefix}_PASSWORD")
    if not sasl:
        if user or password:
            raise BundleError(f"{prefix}_USER: {prefix}_SECURITY is {security}; set sasl_ssl")
        return settings
    if not user or not password:
        raise BundleError(f"{prefix}_USER and {prefix}_PASSWORD: {security} needs both")
    mechanism = environment.get(f"{prefix}_MECHANISM") or MECHANISMS[0]
    if mechanism not in MECHANISMS:
        raise BundleError(f"{prefix}_MECHANISM: expected one of {', '.join(MECHANISMS)}, found {mechanism!r}")
    if mechanism == "PLAIN" and not tls:
        raise BundleError(f"{prefix}_MECHANISM: PLAIN would send the password in clear text; set sasl_ssl")
    return settings | {"sasl.mechanisms": mechanism, "sasl.username": user, "sasl.password": password}


def address_of(address: str) -> tuple[str, str]:
    """Brokers and topic of `host:port,host:port/topic`. Raises BundleError for another form, and if Kafka's
    client is not installed."""
    brokers, _, topic = address.partition("/")
    if not brokers or not topic or "/" in topic:
        raise BundleError(f"{KAFKA}: expected host:port/topic, found {address!r}")
    if find_spec("confluent_kafka") is None:
        raise BundleError(f"{KAFKA}: not installed: pip install confluent-kafka")
    return brokers, topic


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BundleError(f"{FOLDER}: {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BundleError(f"{FOLDER}: {folder}: no permission to write")
    return folder
