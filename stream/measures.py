"""The metrics of a consumer."""

import time
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from stream.topic import Message
from stream.work import Outcome

BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)


class Measures:
    """Counts in `registry`. `clock`: seconds since 1970."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._messages = Counter(
            "churn_stream_messages",
            "Messages whose offsets were committed: new, repeated, refused (a dead letter), left_out.",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("new", "repeated", "refused", "left_out"):
            self._messages.labels(outcome)
        self._customers = Counter(
            "churn_stream_customers", "Vectors of customers that were pushed.", registry=registry
        )
        self._failures = Counter(
            "churn_stream_failures",
            "Tries that failed because a store was away.",
            ["step"],
            registry=registry,
        )
        self._lag = Histogram(
            "churn_stream_lag_seconds",
            "From the time at which a message was sent until its customer's features were online.",
            buckets=BUCKETS,
            registry=registry,
        )
        self._behind = Gauge(
            "churn_stream_behind_messages",
            "Messages in the partitions that are not read yet.",
            registry=registry,
        )
        self._last = Gauge(
            "churn_stream_last_batch_timestamp_seconds", "When the last batch was done.", registry=registry
        )

    def online(self, messages: Sequence[Message]) -> None:
        """These messages have taken effect now."""
        now = self._clock()
        for one in messages:
            self._lag.observe(max(now - one.sent_s, 0.0))

    def batch(self, outcome: Outcome) -> None:
        self._messages.labels("new").inc(outcome.new)
        self._messages.labels("repeated").inc(outcome.repeated)
        self._messages.labels("left_out").inc(outcome.left_out)
        self._messages.labels("refused").inc(len(outcome.refused))
        self._customers.inc(outcome.customers)
        self._last.set(self._clock())

    def failure(self, step: str) -> None:
        self._failures.labels(step).inc()

    def behind(self, messages: int) -> None:
        self._behind.set(messages)
