"""Reads the tags of a FeatureService from Feast's registry. They state from which feature spec it was made.

The registry also contains the on-demand view's function, as source and as a pickle. This module reads
messages by field numbers (feast/protos/feast/core/{Registry,FeatureService}.proto), and never runs or
unpickles any of it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from handlers.bundle import BundleError
from handlers.store import wire
from handlers.store.config import StoreConfig

SERVICES, SPEC, NAME, PROJECT, TAGS, KEY, VALUE = 7, 1, 1, 2, 4, 1, 2


def service_tags(config: StoreConfig, service: str) -> Mapping[str, str] | None:
    """The tags of the FeatureService; None for a kind of registry that only Feast reads.

    Raises BundleError when the registry is unreadable, or does not contain the service.
    """
    kind, path = str(config.registry.get("registry_type", "file")), str(config.registry.get("path", ""))
    if kind == "file" and "://" not in path:
        found = _in_file(config.path(path), service, config.project)
    elif kind == "sql" and "+asyncpg" not in path:
        found = _in_database(path, service, config.project)
    else:
        return None
    if found is None:
        raise BundleError(
            f"feature store: no FeatureService {service} in its registry; build the features first"
        )
    return found


def _in_file(path: Path, service: str, project: str) -> Mapping[str, str] | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"feature store: its registry cannot be read: {error.strerror}") from None
    try:
        for message in _messages(content, SERVICES):
            for spec in _messages(message, SPEC):
                if (_text(spec, NAME), _text(spec, PROJECT)) == (service, project):
                    return _tags(spec)
    except (wire.Corrupt, UnicodeDecodeError):
        raise BundleError("feature store: its registry file is not one; build the features again") from None
    return None


def _in_database(url: str, service: str, project: str) -> Mapping[str, str] | None:
    """Read Feast's SqlRegistry by one SELECT. Feast itself would first try to create the tables."""
    import sqlalchemy
    from sqlalchemy.exc import SQLAlchemyError

    statement = sqlalchemy.text(
        "SELECT feature_service_proto FROM feature_services "
        "WHERE feature_service_name = :service AND project_id = :project"
    )
    try:
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            row = connection.execute(statement, {"service": service, "project": project}).first()
    except (SQLAlchemyError, ImportError) as error:
        raise BundleError(f"feature store: its registry cannot be read: {type(error).__name__}") from None
    if row is None:
        return None
    try:
        [spec] = _messages(bytes(row[0]), SPEC)
        return _tags(spec)
    except (wire.Corrupt, UnicodeDecodeError, ValueError):
        raise BundleError(
            "feature store: its registry holds no FeatureService; build the features again"
        ) from None


def _tags(spec: bytes) -> Mapping[str, str]:
    return {_text(pair, KEY): _text(pair, VALUE) for pair in _messages(spec, TAGS)}


def _messages(message: bytes, wanted: int) -> Iterator[bytes]:
    return (part for number, part in wire.fields(message) if number == wanted and isinstance(part, bytes))


def _text(message: bytes, wanted: int) -> str:
    return b"".join(list(_messages(message, wanted))[-1:]).decode()
