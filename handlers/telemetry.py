"""The metrics of a worker, for Prometheus. All names of our metrics are defined here.

Values are summed in the process. Once a second a thread writes those that have changed to the standard
output, one line for each series; TorchServe reads the lines and exposes them at its metrics address.
TorchServe's own histograms have fixed buckets and need a line for each value. So ours are sent as the
counters that make up a Prometheus histogram: `<name>_bucket{le=...}`, `<name>_sum` and `<name>_count`.
Counters are sent as increments, so that they continue when a worker is restarted and several workers add up.
`configs/torchserve/metrics.yaml` declares the same names to TorchServe (`torchserve_metrics` makes its
content, and a test compares both).
"""

import itertools
import logging
import math
import socket
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FLUSH_EVERY_S = 1.0
CHANNEL = logging.getLogger("churn.metrics")
COMMON = ("model_version", "variant")
"""Labels of every metric."""


@dataclass(frozen=True, eq=False)  # compared by identity, so that its use as a key is quick
class Metric:
    """A counter or gauge, or with `buckets` a histogram."""

    name: str
    labels: tuple[str, ...] = ()
    """In addition to COMMON."""
    buckets: tuple[float, ...] = ()
    """Upper bounds, without the infinite one."""


SECONDS = (
    0.0005,
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.02,
    0.03,
    0.05,
    0.1,
    0.25,
    1.0,
    5.0,
)
HOURS = tuple(3600.0 * hours for hours in (1, 6, 24, 48, 96, 168, 336, 504, 720, 840, 1080, 1440, 2160))
TENTHS = tuple(round(0.05 * step, 2) for step in range(1, 20))
POWERS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)

LATENCY = Metric("churn_request_seconds", buckets=SECONDS)
"""Seconds of a request in the handler: the time of the batch that contained it."""
READ = Metric("churn_feature_read_seconds", buckets=SECONDS)
"""Seconds to read the features of one batch from the online store."""
AGE = Metric("churn_feature_age_seconds", buckets=HOURS)
"""Age of a customer's features when they are used."""
SCORE = Metric("churn_score", buckets=TENTHS)
"""Churn probabilities that were answered."""
BATCH_REQUESTS = Metric("churn_batch_requests", buckets=POWERS)
"""Requests in a batch."""
BATCH_CUSTOMERS = Metric("churn_batch_customers", buckets=POWERS)
"""Distinct customers in a batch."""
HISTOGRAMS = (LATENCY, READ, AGE, SCORE, BATCH_REQUESTS, BATCH_CUSTOMERS)

REQUESTS = Metric("churn_requests_total", ("protocol", "code"))
"""Requests, by protocol and HTTP status of the answer."""
PREDICTIONS = Metric("churn_predictions_total", ("decision",))
"""Scored customers, by decision: `High Risk` or `Low Risk`."""
VECTORS = Metric("churn_feature_vectors_total", ("status",))
"""Distinct customers read, by the status of their features: ok, stale, unknown, degraded, refused."""
MISSING = Metric("churn_feature_missing_total", ("feature",))
"""Customers for whom the store has no value of a feature."""
OVERRIDDEN = Metric("churn_overridden_total")
"""Customers who were scored with features from the request (what-if)."""
ERRORS = Metric("churn_errors_total", ("kind",))
"""Errors, by kind: `bad_request`, `feature_store_unavailable`, `no_score`, `internal`, `additivity`
(attributions that do not add up to the score), `prediction_log`, `busy`, `no_reference`."""
LOGGED = Metric("churn_log_records_total", ("outcome",))
"""Records of the prediction log: handed, written, dropped."""
PROBES = Metric("churn_probes_total", ("through",))
"""Requests of our own (handlers/identity.py, PROBE_ID), which no other metric counts. `through`: `gateway` if
the gateway has counted them as well, else `direct`."""
COUNTERS = (REQUESTS, PREDICTIONS, VECTORS, MISSING, OVERRIDDEN, ERRORS, LOGGED, PROBES)

LOG_QUEUE = Metric("churn_log_waiting", ("worker",))
"""Records of the prediction log that wait in memory to be written."""
STORE = Metric("churn_feature_store", ("stat", "worker"))
"""Figures of the reader of the feature store: reads, seconds, state of the breaker, cache hits."""
GAUGES = (LOG_QUEUE, STORE)

BAD_REQUEST, STORE_DOWN, NO_SCORE, INTERNAL, ADDITIVITY, LOG_FAILED, BUSY, NO_REFERENCE = (
    "bad_request", "feature_store_unavailable", "no_score", "internal", "additivity", "prediction_log",
    "busy", "no_reference",
)  # fmt: skip
"""Kinds of ERRORS."""

Series = tuple[str, tuple[str, ...]]
"""Name of a metric and the values of its labels."""


class Histogram:
    """Counts of values by bucket."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0


class Telemetry:
    """The metrics of one worker. The thread that answers requests adds; the thread of `start` sends."""

    def __init__(self, model_version: str = "", variant: str = "", worker: str = "0") -> None:
        self._common = (model_version, variant)
        self._worker = worker
        self._histograms = {metric: Histogram(metric.buckets) for metric in HISTOGRAMS}
        self._counters: dict[tuple[Metric, tuple[str, ...]], float] = {}
        self._sent: dict[Series, float] = {}
        self._watched: list[Callable[[], Mapping[tuple[Metric, str], float]]] = []
        self._stopping = threading.Event()
        self._sending = threading.Lock()
        self._thread: threading.Thread | None = None

    def observe(self, metric: Metric, value: float, times: int = 1) -> None:
        """Adds a value to a histogram, `times` times."""
        histogram = self._histograms[metric]
        histogram.counts[bisect_left(histogram.bounds, value)] += times
        histogram.sum += value * times

    def observe_all(self, metric: Metric, values: Iterable[float]) -> None:
        """Adds values to a histogram."""
        histogram = self._histograms[metric]
        bounds, counts = histogram.bounds, histogram.counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            histogram.sum += value

    def add(self, metric: Metric, *labels: str, times: float = 1) -> None:
        """Adds to a counter; `labels` are the values of its own labels, in their order."""
        key = (metric, labels)
        self._counters[key] = self._counters.get(key, 0) + times

    def watch_log(self, counts: Callable[[], Mapping[str, int]], failures: Callable[[], int]) -> None:
        """Includes the counts of the prediction log whenever metrics are sent."""

        def read() -> Mapping[tuple[Metric, str], float]:
            found = dict(counts())
            waiting = found.pop("waiting")
            return {
                (LOG_QUEUE, ""): waiting,
                (ERRORS, LOG_FAILED): failures(),
                **{(LOGGED, name): n for name, n in found.items()},
            }

        self._watched.append(read)

    def watch_store(self, stats: Callable[[], Mapping[str, float]]) -> None:
        """Includes the figures of the feature store's reader whenever metrics are sent."""
        self._watched.append(lambda: {(STORE, name): value for name, value in stats().items()})

    def snapshot(self) -> tuple[dict[Series, float], dict[Series, float]]:
        """The present values of all counters (including those of histograms) and of all gauges."""
        counters: dict[Series, float] = {}
        gauges: dict[Series, float] = {}
        for metric, histogram in self._histograms.items():
            counters |= self._parts(metric, histogram)
        for (metric, labels), value in list(self._counters.items()):
            counters[metric.name, (*self._common, *labels)] = value
        for watched in self._watched:
            for (metric, label), value in watched().items():
                own = (label,) if label else ()
                if metric in GAUGES:
                    gauges[metric.name, (*self._common, *own, self._worker)] = value
                else:
                    counters[metric.name, (*self._common, *own)] = value
        return counters, gauges

    def lines(self, now: float) -> list[str]:
        """Lines for TorchServe with what has changed since the last call. `now`: Unix time in seconds."""
        with self._sending:
            counters, gauges = self.snapshot()
            tail = f"#hostname:{socket.gethostname()},{int(now)}"
            lines = []
            for series, value in counters.items():
                more = value - self._sent.get(series, 0.0)
                # A new series is sent even at 0, since Prometheus sees no increase in one that begins at 1.
                if more > 0 or series not in self._sent:
                    lines.append(f"[METRICS]{_line(series, max(more, 0.0), 'COUNTER')}|{tail}")
                    self._sent[series] = max(value, self._sent.get(series, 0.0))
            for series, value in gauges.items():
                if self._sent.get(series) != value and math.isfinite(value):
                    lines.append(f"[METRICS]{_line(series, value, 'GAUGE')}|{tail}")
                    self._sent[series] = value
            return lines

    def start(self) -> None:
        """Starts the thread that sends metrics once a second."""
        CHANNEL.setLevel(logging.INFO)  # the entry sets a higher level for the root logger

        def run() -> None:
            while not self._stopping.wait(FLUSH_EVERY_S):
                self._send()

        self._thread = threading.Thread(target=run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Sends metrics for the last time; what is counted later is not sent."""
        self._stopping.set()
        if self._thread is not None:
            self._send()

    def _send(self) -> None:
        # In one call, so that no other output is between the lines.
        if lines := self.lines(time.time()):
            CHANNEL.info("\n".join(lines))

    def _parts(self, metric: Metric, histogram: Histogram) -> dict[Series, float]:
        parts: dict[Series, float] = {}
        total = 0
        for bound, count in zip((*histogram.bounds, math.inf), list(histogram.counts), strict=True):
            total += count
            le = "+Inf" if math.isinf(bound) else f"{bound:.10g}"
            parts[f"{metric.name}_bucket", (*self._common, le)] = total
        parts[f"{metric.name}_sum", self._common] = histogram.sum
        parts[f"{metric.name}_count", self._common] = total
        return parts


def torchserve_metrics() -> dict[str, list[dict[str, Any]]]:
    """The section `model_metrics` of TorchServe's metrics.yaml; TorchServe adds the label Hostname."""

    def declared(name: str, labels: Sequence[str]) -> dict[str, Any]:
        return {"name": name, "unit": "Count", "dimensions": [*COMMON, *labels]}

    counters = [declared(metric.name, metric.labels) for metric in COUNTERS]
    for metric in HISTOGRAMS:
        counters.append(declared(f"{metric.name}_bucket", ("le",)))
        counters += [declared(f"{metric.name}_{part}", ()) for part in ("sum", "count")]
    return {"counter": counters, "gauge": [declared(metric.name, metric.labels) for metric in GAUGES]}


def worker_name(arguments: Sequence[str] = sys.argv) -> str:
    """The number at the end of the worker's socket, or 0; it is the same after a restart."""
    for flag, value in itertools.pairwise(arguments):
        if flag in ("--sock-name", "--port"):
            return value.rpartition(".")[2]
    return "0"


_LABELS = {
    **{metric.name: metric.labels for metric in (*COUNTERS, *GAUGES)},
    **{f"{metric.name}_bucket": ("le",) for metric in HISTOGRAMS},
}


def _line(series: Series, value: float, kind: str) -> str:
    """A line in the format of TorchServe's frontend, whose numbers have only digits, point, minus and e."""
    name, values = series
    names = (*COMMON, *_LABELS.get(name, ()))
    labels = ",".join(f"{label}:{_plain(text)}" for label, text in zip(names, values, strict=True))
    number = repr(float(value)).replace("e+", "e")
    return f"{name}.Count:{number}|#{labels}|#type:{kind}"


def _plain(text: str) -> str:
    """The label without the characters that separate parts of a line."""
    return "".join("_" if c in ":,|#\r\n" else c for c in text)
