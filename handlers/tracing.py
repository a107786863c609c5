"""OpenTelemetry spans of requests. They are off unless the worker's environment names a receiver.

The settings are in settings.py. OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
have the meaning that OpenTelemetry defines.

A traced request has a span `predict`, which is a child of the client's span if there is a `traceparent`. In
it are the spans `queue` (from the gateway's first byte to the worker, if our gateway is in front), `read`,
`score` and `write`; the last three are those of the whole batch. If there is a `traceparent`, its flag
`sampled` decides whether the request is traced.

Needs the extra `otel`, which is imported only if a receiver is named. A thread of OpenTelemetry sends the
spans, and drops those for which its queue has no room.
"""

import random
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from handlers.bundle import BundleError
from handlers.protocol.messages import Answer, Call
from handlers.settings import read_settings, variable_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINT = variable_of("otel_endpoint")
QUEUE, READ, SCORE, WRITE = "queue", "read", "score", "write"
SEND_TIMEOUT_S = 2
"""How long a stop waits for the last spans; a worker that is stopped has five seconds."""
LONGEST_QUEUE_NS = 600 * 10**9
"""A longer wait means that the clock of the gateway differs, and is not reported."""


def open_tracing(
    environment: Mapping[str, str], model_name: str, model_version: str, variant: str
) -> "Tracing | None":
    """Tracing to the receiver that the environment names; None if it names none.

    Raises BundleError, with the name of the variable, for a value that cannot be used.
    """
    settings = read_settings(environment)
    endpoint = settings.otel_endpoint
    if not endpoint:
        return None
    if not endpoint.startswith(("http://", "https://")):
        raise BundleError(f"{ENDPOINT}: expected http://host:4318 or https://..., found {endpoint!r}")
    named = {} if environment.get("OTEL_SERVICE_NAME") else {"service.name": model_name}
    resource = {**named, "service.version": model_version, "churn.variant": variant}
    try:
        return Tracing(_provider(endpoint, resource), settings.otel_ratio)
    except ImportError:
        raise BundleError(f"{ENDPOINT}: not installed: pip install 'churn-prediction[otel]'") from None


def _provider(endpoint: str, resource: Mapping[str, str]) -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    # `is_sampled` has decided before a span is made.
    provider = TracerProvider(
        sampler=ALWAYS_ON, resource=Resource.create(dict(resource)), shutdown_on_exit=False
    )
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=SEND_TIMEOUT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


class Tracing:
    """Times of the stages of the present batch, from which spans are made when it is answered."""

    def __init__(self, provider: "TracerProvider", ratio: float) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("churn")
        self._ratio = ratio
        self._began = 0
        self._stages: list[tuple[str, int]] = []

    def begin(self) -> None:
        """Call when a batch arrives."""
        self._began = time.time_ns()
        self._stages = []

    def stage(self, name: str) -> None:
        """Call when a stage begins; the one before has then ended."""
        self._stages.append((name, time.time_ns()))

    def record(self, calls: Sequence[Call], answers: Sequence[Answer]) -> None:
        """Makes the spans of the traced requests of a batch that is answered."""
        ended = time.time_ns()
        for call, answer in zip(calls, answers, strict=True):
            if is_sampled(call.traceparent, self._ratio, random.random()):  # noqa: S311  no secret
                self._make_spans(call, answer, ended, len(calls))

    def close(self) -> None:
        """Sends the waiting spans."""
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
    """The client's decision if there is one, otherwise `draw` < `ratio`; `draw` is uniform from 0 to 1."""
    if traceparent:
        return int(traceparent[53:55], 16) & 1 == 1
    return draw < ratio


def _waited_ns(received: float, began: int) -> int:
    """How long a request waited for the worker; 0 if unknown. `received`: Unix time in seconds."""
    waited = began - int(received * 1e9)
    return waited if 0 < waited < LONGEST_QUEUE_NS else 0


def _parent(traceparent: str) -> Any:
    """The context in which the client's span is the current one; empty if there is none."""
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
