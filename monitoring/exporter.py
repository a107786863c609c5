"""The exporter: a process of its own that serves the metrics of monitoring, retraining and rollouts.

It reads the database at an interval, and a scrape gets the newest reading, so that a slow database delays no
scrape. While the database is away, the last reading stays, with its time: an alert about a finding does not
resolve because of that, and `churn_exporter_database_reachable` is 0.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import Metric
from prometheus_client.exposition import ThreadingWSGIServer

from core.errors import ServingError
from monitoring.exported import Reading, Records, metrics, read
from monitoring.families import gauge
from monitoring.targets import Target
from rollout.errors import RolloutError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger("churn.monitor")


class Exporter:
    """Collects the newest reading at each scrape. `interval_s`: seconds between two runs of the monitor."""

    def __init__(self, database: str, model: str, interval_s: float) -> None:
        self._database, self._model, self._interval_s = database, model, interval_s
        self._records: Records | None = None
        self._reading: Reading | None = None
        self._failure = ""

    def refresh(self, now: datetime) -> None:
        """Read the database. A failure is logged once, and again when it changes."""
        try:
            if self._records is None:
                self._records = Records(self._database)
            self.accept(read(self._records, self._model, now))
        except RolloutError as error:
            if str(error) != self._failure:
                log.warning("%s", error)
            self._failure = str(error)

    def accept(self, reading: Reading) -> None:
        """The reading whose metrics are served from now on."""
        self._reading, self._failure = reading, ""

    def collect(self) -> Iterator[Metric]:
        reachable = self._reading is not None and not self._failure
        yield gauge(
            "churn_exporter_database_reachable",
            "Whether the database could be read at the last attempt.",
            {(): float(reachable)},
        )
        if (reading := self._reading) is None:
            return
        yield gauge(
            "churn_exporter_last_success_timestamp_seconds",
            "When the database was read, of which the other metrics are.",
            {(): reading.at.timestamp()},
        )
        yield from metrics(reading, self._interval_s)


@contextmanager
def exporting(
    exporter: Exporter, address: str, machine: Callable[[], Sequence[Target]] = list
) -> Iterator[str]:
    """Serves the metrics at `address` (host:port; port 0: a free one is chosen) inside the block, and gives
    the URL. Path `/targets` answers with `machine()`, the addresses of this machine's servers.

    Raises ServingError where nothing can listen there.
    """
    registry = CollectorRegistry()
    registry.register(exporter)
    host, _, port = address.rpartition(":")
    try:
        server = make_server(
            host, int(port), _application(registry, machine), ThreadingWSGIServer, handler_class=_Quiet
        )
    except OSError as error:
        raise ServingError(
            f"monitoring.exporter.address {address}: {error.strerror}; choose another port"
        ) from None
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _application(registry: CollectorRegistry, machine: Callable[[], Sequence[Target]]) -> "WSGIApplication":
    metrics_page = make_wsgi_app(registry)

    def answer(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/targets":
            return metrics_page(environ, start)  # type: ignore[no-any-return]
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(list(machine())).encode()]

    return answer


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """No log: scrapes come every few seconds."""


def export(
    exporter: Exporter, over: threading.Event, refresh_s: float, clock: Callable[[], datetime]
) -> None:
    """Reads the database every `refresh_s` seconds until `over` is set."""
    while not over.is_set():
        exporter.refresh(clock())
        over.wait(refresh_s)
