"""`churn stream`: purchases on a topic become online features within a second."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from churn import console
from churn.argument_types import moment
from churn.command import argument, command

if TYPE_CHECKING:
    from churn.settings import Settings
    from stream.config import StreamConfig
    from stream.health import Health
    from stream.measures import Measures

CLOCK = argument(
    "--clock-offset",
    type=float,
    default=0.0,
    metavar="SECONDS",
    help="difference of the clock to the system's, for purchases of the past (default: 0)",
)


@command(
    "stream",
    "turn purchases on a Kafka topic into online features, until interrupted",
    examples=(
        "churn stream --set stream.brokers=127.0.0.1:9092",
        "churn stream --profile production",
    ),
    arguments=(CLOCK,),
)
def stream(settings: Settings, arguments: Namespace) -> int:
    from pipelines.streaming import security, streaming, work_of
    from stream.consumer import StreamConsumer
    from stream.errors import StreamError
    from stream.health import Health

    config = settings.stream
    if config.brokers is None:
        raise StreamError("stream.brokers: name Kafka's brokers, host:port,host:port")
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("churn").setLevel(logging.INFO)
    health = Health()
    with _interrupted() as over, _measured(config, health) as measures, streaming(settings) as parts:
        from stream.topic import Topic

        work = work_of(settings, parts, _clock(arguments.clock_offset))
        topic = Topic(config, security())
        try:
            console.err.print(f"Reading {config.topic} as {config.group} until interrupted (Ctrl-C)")
            wait_s = config.wait_ms / 1000
            consumer = StreamConsumer(
                topic, work, measures, config.batch, wait_s, config.longest_retry_s, health
            )
            consumer.run(over.is_set)
        finally:
            topic.close()
    return 0


@command(
    "stream load",
    "load the purchases of the records into the stream's state, before the first start and after an ingest",
    examples=("churn stream load",),
)
def load(settings: Settings, arguments: Namespace) -> int:
    from pipelines.streaming import load as load_records
    from pipelines.streaming import streaming

    with console.steps(1) as shown:
        shown.start("load")
        with streaming(settings) as parts:
            new = load_records(settings, parts)
    console.out.print(f"{new:,} purchases are new in the stream's state")
    return 0


@command(
    "stream refresh",
    "compute the features of all customers in the stream's state as of one moment, and push them",
    examples=("churn stream refresh", "churn stream refresh --as-of 2026-01-01T00:00"),
    arguments=(
        argument("--as-of", type=moment, metavar="DATE", help="the moment, UTC; default: now"),
        CLOCK,
    ),
)
def refresh(settings: Settings, arguments: Namespace) -> int:
    from pipelines.streaming import streaming, work_of

    with console.steps(1) as shown:
        shown.start("refresh")
        with streaming(settings) as parts:
            clock = _clock(arguments.clock_offset)
            pushed = work_of(settings, parts, clock).refresh(arguments.as_of or clock())
    console.out.print(f"{pushed:,} customers are computed anew")
    return 0


def _clock(offset_s: float) -> Callable[[], datetime]:
    offset = timedelta(seconds=offset_s)
    return lambda: datetime.now(UTC) + offset


@contextmanager
def _interrupted() -> Iterator[threading.Event]:
    """An event that is set by SIGINT or SIGTERM."""
    over = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: over.set()) for number in signals}
    try:
        yield over
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _measured(config: StreamConfig, health: Health) -> Iterator[Measures]:
    """The metrics, served with the health at `stream.address`."""
    from prometheus_client import CollectorRegistry

    from stream.errors import StreamError
    from stream.health import answering
    from stream.measures import Measures

    registry = CollectorRegistry()
    if config.address is None:
        yield Measures(registry)
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(answering(config.address, registry, health))
        except (OSError, ValueError) as error:
            raise StreamError(f"stream.address {config.address}: {error}; choose another port") from None
        yield Measures(registry)
