"""OpenTelemetry spans of served requests, by the worker's environment; off unless it names a receiver.

| variable | |
|---|---|
| CHURN_OTEL_ENDPOINT | base URL of an OTLP receiver over HTTP, `http://127.0.0.1:4318` |
| CHURN_OTEL_RATIO | share of the requests without a `traceparent` that are traced; 0.01 |
| OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES | as OpenTelemetry defines them |

A traced request has a span `predict`, a child of the caller's where `traceparent` names one, and in it
`queue` (from the gateway's first byte to the worker, where our gateway is in front), `read`, `score` and
`write`. The last three are of the whole batch that the request travelled in. Whether a request is traced is
the caller's decision where there is a `traceparent`: its flag `sampled` holds.

Needs the extra `otel`, which is imported only when a receiver is named. Spans are sent by a thread of
OpenTelemetry; those that its queue cannot hold are dropped there.
"""

import random
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from handlers.bundle import BundleError
from handlers.environment import number
from handlers.protocol.messages import Answer, Call

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINT, RATIO = "CHURN_OTEL_ENDPOINT", "CHURN_OTEL_RATIO"
QUEUE, READ, SCORE, WRITE = "queue", "read", "score", "write"
SEND_TIMEOUT_S = 2
"""A stop waits for the last spans no longer than this; a worker that is stopped has five seconds."""
LONGEST_QUEUE_NS = 600 * 10**9
"""A request that seems to have waited longer comes from a gateway whose clock is another."""


def open_tracing(
    environment: Mapping[str, str], model_name: str, model_version: str, variant: str
) -> "Tracing | None":
    """As the environment says; None where it names no receiver.

    Raises BundleError, with the variable's name, for what cannot be used.
    """
    endpoint = environment.get(ENDPOINT)
    if not endpoint:
        return None
    if not endpoint.startswith(("http://", "https://")):
        raise BundleError(f"{ENDPOINT}: expected http://host:4318 or https://..., found {endpoint!r}")
    ratio = number(environment, RATIO, "0.01")
    if not 0 <= ratio <= 1:
        raise BundleError(f"{RATIO}: expected a number from 0 to 1, found {ratio:g}")
    named = {} if environment.get("OTEL_SERVICE_NAME") else {"service.name": model_name}
    resource = {**named, "service.version": model_version, "churn.variant": variant}
    try:
        return Tracing(_provider(endpoint, resource), ratio)
    except ImportError:
        raise BundleError(f"{ENDPOINT}: not installed: pip install 'churn-prediction[otel]'") from None


def _provider(endpoint: str, resource: Mapping[str, str]) -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    # what reaches the provider is sampled already, see `is_sampled`
    provider = TracerProvider(
        sampler=ALWAYS_ON, resource=Resource.create(dict(resource)), shutdown_on_exit=False
    )
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=SEND_TIMEOUT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


class Tracing:
    """The stages of the batch that is at work, and the spans that are made of them when it is answered."""

    def __init__(self, provider: "TracerProvider", ratio: float) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("churn")
        self._ratio = ratio
        self._began = 0
        self._stages: list[tuple[str, int]] = []

    def begin(self) -> None:
        """A batch has come."""
        self._began = time.time_ns()
        self._stages = []

    def stage(self, name: str) -> None:
        """From now on the batch is in this stage; the one before has ended."""
        self._stages.append((name, time.time_ns()))

    def record(self, calls: Sequence[Call], answers: Sequence[Answer]) -> None:
        """The batch is answered: make the spans of those of its requests that are traced."""
        ended = time.time_ns()
        for call, answer in zip(calls, answers, strict=True):
            if is_sampled(call.traceparent, self._ratio, random.random()):  # noqa: S311  no secret
                self._make_spans(call, answer, ended, len(calls))

    def close(self) -> None:
        """Send what waits."""
        self._provider.shutdown()

    def _make_spans(self, call: Call, answer: Answer, ended: int, requests: int) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        received = self._began - _waited_ns(call.received, self._began)
        span = self._tracer.start_span(
            "predict",
            context=_parent(call.traceparent),
            kind=SpanKind.SERVER,
            start_time=received,
            attributes={
                "http.response.status_code": answer.http_status,
                "churn.request_id": call.request_id,
                "churn.batch_requests": requests,
            },
        )
        within = set_span_in_context(span)
        stages = [(QUEUE, received, self._began)] if received < self._began else []
        ends = [at for _, at in self._stages[1:]] + [ended]
        stages += [(name, at, end) for (name, at), end in zip(self._stages, ends, strict=True)]
        for name, start, end in stages:
            self._tracer.start_span(name, context=within, start_time=start).end(end)
        if answer.http_status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended)


def is_sampled(traceparent: str, ratio: float, draw: float) -> bool:
    """The caller's decision where there is one, else by chance; `draw`: uniform from 0 to 1."""
    if traceparent:
        return int(traceparent[53:55], 16) & 1 == 1
    return draw < ratio


def _waited_ns(received: float, began: int) -> int:
    """How long a request waited for the worker; 0 where it is not known. `received`: Unix time in seconds."""
    waited = began - int(received * 1e9)
    return waited if 0 < waited < LONGEST_QUEUE_NS else 0


def _parent(traceparent: str) -> Any:
    """The context in which the caller's span is the current one; empty where there is none."""
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    if not traceparent:
        return Context()
    parent = SpanContext(
        trace_id=int(traceparent[3:35], 16),
        span_id=int(traceparent[36:52], 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    return set_span_in_context(NonRecordingSpan(parent), Context())
