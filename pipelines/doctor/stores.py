"""Checks that the source, the stores and the databases can be reached."""

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.doctor.check import Installation, Result, broken, ok, warning

CONNECT_S = 3.0
"""How long a connection may take. The clients' own limits are longer, so this is tried first."""
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "redis": 6379}


def source(installation: Installation) -> Result:
    """The first rows of the source can be read."""
    from data.source.columns import columns_to_read
    from data.source.readers import public_uri
    from data.source.sources import as_table, open_source
    from pipelines.steps.depends import columns_read

    config = installation.settings.data
    table = as_table(config)
    further = columns_to_read(config, table, columns_read(installation.context))
    rows = sum(chunk.num_rows for chunk in open_source(config, further, limit=10).chunks())
    return ok(f"{public_uri(table)} ({table.kind}): the first {rows} rows can be read")


def records(installation: Installation) -> Result:
    """Each part of the current records has the digest in the manifest."""
    from data.prepare.parts import sha256
    from data.records.folder import parts
    from data.records.versions import current_manifest

    files = installation.files
    if not files.manifest.exists():
        return warning("no records yet", "churn run")
    manifest = current_manifest(files)
    named = {part["name"]: part["sha256"] for part in manifest["parts"]}
    wrong = [part.name for part in parts(files) if named.get(part.name) != sha256(part)]
    names = ", ".join(wrong) or "one is missing"
    if wrong or len(named) != len(parts(files)):
        return broken(f"parts differ from the manifest: {names}", "churn ingest")
    return ok(f"{manifest['rows']:,} rows until {manifest['newest'][:10]}; {len(named)} parts as recorded")


def online_store(installation: Installation) -> Result:
    """A customer can be read from the online store."""
    from features.store import serving_environment
    from pipelines.services import registered
    from pipelines.steps.intact import online_store as is_intact

    settings, files = installation.settings, installation.files
    if not files.feature_manifest.exists():
        return warning("no features yet", "churn run")
    for address in serving_environment(settings.features, files).values():
        if fault := unreachable(address):
            return broken(fault, "start the store, or correct features.online_store and features.registry")
    kind = settings.features.online_store["type"]
    if not is_intact(installation.context):
        return broken(
            f"{kind}: lacks features of this project, or of a model in use", "churn features materialize"
        )
    names = ", ".join(sorted(registered(settings)))
    return ok(f"{kind}: has this project's features: {names}")


def registry(installation: Installation) -> Result:
    """MLflow's registry answers."""
    from core.addresses import masked
    from training.registry.model_registry import Registry

    uri = installation.settings.training.tracking_uri
    if fault := unreachable(uri):
        return broken(fault, "start the MLflow server, or correct training.tracking_uri")
    found = Registry(installation.settings.training)
    if not found.exists:
        return warning("no MLflow database yet", "churn run")
    return ok(f"{masked(uri)}: {len(found.versions())} registered versions")


def study(installation: Installation) -> Result:
    """The database of the Optuna study answers."""
    from core.addresses import masked

    uri = installation.settings.tuning.storage
    if (file := sqlite_file(uri)) is not None and not file.is_file():
        return warning("no study yet", "churn run")
    if fault := unreachable(uri):
        return broken(fault, "start the database, or correct tuning.storage")
    import optuna

    from training.tuning.slots import open_storage, storage_errors

    with storage_errors(uri):
        names = optuna.get_all_study_names(open_storage(installation.settings.tuning))
    return ok(f"{masked(uri)}: {len(names)} studies")


def rollouts(installation: Installation) -> Result:
    """The database of rollouts answers."""
    from core.addresses import masked
    from pipelines.rollout import open_store

    settings = installation.settings
    uri = settings.rollout.database
    if (file := sqlite_file(uri)) is not None and not file.is_file():
        return warning("no database of rollouts yet", "churn run")
    if fault := unreachable(uri):
        return broken(fault, "start the database, or correct rollout.database")
    store = open_store(settings)
    running = store.current(settings.serving.model_name)
    if running is not None and running.stuck:
        return broken(f"rollout {running.id} is stuck: {running.trouble}", "churn rollout status")
    state = f"rollout {running.id} is running" if running else "no rollout is running"
    return ok(f"{masked(uri)}: {state}")


def prediction_log(installation: Installation) -> Result:
    """Predictions can be logged."""
    serving, files = installation.settings.serving, installation.files
    if serving.prediction_log_kafka is not None:
        return _kafka(serving.prediction_log_kafka)
    if not serving.prediction_log:
        return warning(
            "switched off: nothing can be monitored or traced", "--set serving.prediction_log=true"
        )
    folder = files.predictions
    if not folder.exists():
        return ok(f"{folder} does not exist yet; the first server creates it")
    if not os.access(folder, os.W_OK):
        return broken(f"{folder} cannot be written", f"sudo chown -R {os.getuid()} {folder}")
    days = sorted(day.name.removeprefix("date=") for day in folder.glob("date=*"))
    return ok(f"{folder}: {f'{len(days)} days, the newest {days[-1]}' if days else 'empty'}")


def unreachable(address: str) -> str:
    """Why no connection to the host in `address` can be made; empty: it can, or the address is a file."""
    host, port = _host_and_port(address)
    if host is None or port is None:
        return ""
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError as error:
        return f"{host}:{port}: {error.strerror or type(error).__name__}"
    return ""


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite database; None for another database."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def _host_and_port(address: str) -> tuple[str | None, int | None]:
    """Of a URI, or of Feast's `host:port,option=value`; None, None for a path."""
    if "://" in address:
        parts = urlsplit(address)
        return parts.hostname, parts.port or PORTS.get(parts.scheme.partition("+")[0])
    host, colon, port = address.partition(",")[0].rpartition(":")
    return (host, int(port)) if colon and port.isdigit() and "/" not in host else (None, None)


def _kafka(address: str) -> Result:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    from handlers.records.settings import kafka_security

    brokers, _, topic = address.rpartition("/")
    remedy = "start the brokers, or correct serving.prediction_log_kafka and its CHURN_ variables"
    client = AdminClient({"bootstrap.servers": brokers, "log_level": 0, **kafka_security(os.environ)})
    try:
        found = client.list_topics(timeout=CONNECT_S * 2)
    except KafkaException as error:
        return broken(f"{brokers}: {error.args[0].str()}", remedy)
    if topic not in found.topics:
        return warning(f"{brokers}: has no topic {topic} yet", f"create the topic {topic}")
    return ok(f"{brokers}: topic {topic} with {len(found.topics[topic].partitions)} partitions")
