"""`churn stream`: puts the parts of the stream together for a workspace."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from core.workspace import Workspace
from data.mask import load_key
from features.build import read_feature_manifest
from handlers.bundle import BundleError
from handlers.records.settings import kafka_security
from pipelines.context import Stages
from pipelines.services import columns_read_by, needed_services
from stream.aggregates import microseconds
from stream.errors import StoreAway, StreamError
from stream.history import LOADED, load_records, loaded
from stream.purchases import PurchaseReader
from stream.several import ComputeAll, PushAll, Several
from stream.state import State
from stream.work import Work

SECURITY = "CHURN_STREAM_KAFKA"
"""Prefix of the variables for TLS and SASL."""


@dataclass(frozen=True)
class Streaming:
    """The parts of a stream, with an open state."""

    reader: PurchaseReader
    state: State


@contextmanager
def streaming(settings: Stages) -> Iterator[Streaming]:
    """Reader and state. Raises StreamError for settings that a stream cannot have, or if the state cannot be
    reached."""
    files, config = settings.files, settings.stream
    key = load_key(settings.data, files)
    read = columns_read_by(settings)
    reader = PurchaseReader(settings.data, read, config.identity, files, key)
    with _store_errors():
        state = State(config.state, reader.further)
        try:
            yield Streaming(reader, state)
        finally:
            state.close()


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except StoreAway as error:
        raise StreamError(f"{error}; start the database, or correct stream.state") from None


def work_of(settings: Stages, parts: Streaming, clock: Callable[[], datetime]) -> Work[Several]:
    """The work on batches, for the services that are needed when this is called.

    Raises StreamError when no records are loaded yet, FeatureError when a service is not in the feature store
    with its spec.
    """
    from stream.aggregates import Aggregates
    from stream.online import Online

    if parts.state.fact(LOADED) is None:
        raise StreamError("stream.state has no records yet; run `churn stream load` first")
    services = needed_services(settings)
    compute = ComputeAll([Aggregates(one.spec, parts.reader.further) for one in services])
    push = PushAll([Online(one.spec, settings.files).push for one in services])
    return Work(parts.reader, parts.state, compute, push, clock, settings.stream.future_s)


def load(settings: Stages, parts: Streaming) -> int:
    """Load the purchases of the records; the number of new ones."""
    further: Mapping[str, pa.DataType] = parts.reader.further
    return load_records(settings.data, settings.files, parts.state, further)


def is_configured(settings: Stages) -> bool:
    """Whether there may be a state: the settings name brokers, or it is a file that exists."""
    file = settings.stream.state.removeprefix("sqlite:///")
    return settings.stream.brokers is not None or Path(file).is_file()


def is_loaded(settings: Stages) -> bool:
    """Whether the stream has begun, so that the online store may have its vectors. A profile names brokers
    also for sources that a stream cannot have. Raises StreamError if the state cannot be reached."""
    if not is_configured(settings):
        return False
    with _store_errors():
        return loaded(settings.stream.state)


def streamed(settings: Stages, latest: datetime) -> list[str]:
    """The customers (masked) with a vector of the stream that is later than the snapshots of `latest`."""
    if not is_loaded(settings):
        return []
    with streaming(settings) as parts:
        return [user for page in parts.state.customers(10_000, microseconds(latest)) for user in page]


def push_again(settings: Stages, latest: datetime, clock: Callable[[], datetime]) -> int:
    """Push the vectors of `streamed` customers anew, because a store may have replaced them by snapshots."""
    if not is_loaded(settings):
        return 0
    with streaming(settings) as parts:
        return work_of(settings, parts, clock).refresh(later_than=latest)


def erase(settings: Stages, users: Sequence[str]) -> int:
    """Remove customers (masked) from the state; returns the number of their purchases."""
    if not is_loaded(settings):
        return 0
    with streaming(settings) as parts:
        return parts.state.erase(users)


def newest_moment(files: Workspace) -> datetime:
    """The moment of the newest snapshots."""
    return datetime.fromisoformat(read_feature_manifest(files)["latest"])


def security() -> dict[str, str]:
    """librdkafka's settings for TLS and SASL. Raises StreamError for variables that cannot be used."""
    try:
        return kafka_security(os.environ, SECURITY)
    except BundleError as error:
        raise StreamError(str(error)) from None
