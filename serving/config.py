"""What `configs/serving.yaml` and `configs/gateway.yaml` may say."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from core.config import Config

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Batching(Config):
    """How TorchServe gathers requests for a worker."""

    batch_size: int = Field(gt=0)
    """Most requests in one batch."""
    max_batch_delay_ms: int = Field(1, gt=0)
    """0 makes a lone request wait 107 ms in TorchServe 0.12."""


class Tracing(Config):
    """OpenTelemetry spans of requests; needs the extra `otel`."""

    endpoint: str | None = Field(None, pattern=r"^https?://[^\s]+$")
    """Base URL of an OTLP receiver over HTTP (http://127.0.0.1:4318); null: no tracing, and no cost."""
    sample_ratio: float = Field(0.01, ge=0, le=1)
    """Of requests without a `traceparent`; with one, its flag decides."""


class ServingConfig(Config):
    model_name: str = Field("churn", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the model in the paths of requests."""
    host: str = "127.0.0.1"
    """Address at which TorchServe listens. Clients use the gateway."""
    inference_port: int = Field(0, ge=0, le=65535)
    """0: the system chooses."""
    management_port: int = Field(0, ge=0, le=65535)
    """0: the system chooses."""
    metrics_port: int = Field(0, ge=0, le=65535)
    """0: the system chooses."""
    workers: int = Field(1, gt=0)
    """Processes that score. Use half of the cores, since TorchServe needs the other half; each takes 0.5
    GB."""
    profile: Literal["latency", "throughput"] = "throughput"
    """Which of the two settings of batches below is used. `latency`: a batch of one, for the shortest time.
    `throughput`: batches of many."""
    latency: Batching = Batching(batch_size=1)
    throughput: Batching = Batching(batch_size=32)
    response_timeout_s: int = Field(60, gt=0)
    """Time after which TorchServe replaces a worker that does not answer."""
    start_timeout_s: float = Field(90, gt=0)
    """Time in which a server has to become ready."""
    job_queue_size: int = Field(1000, gt=0)
    """Requests that wait for a worker; one more is answered 503 at once."""
    max_request_bytes: int = Field(1_048_576, gt=0)
    """Largest body of a request, as sent and once it is decompressed; a larger one is answered 413."""
    max_instances: int = Field(1000, gt=0)
    """Per request; more is refused with a 400."""
    batch_rows: int = Field(65_536, gt=0)
    """What a batch may cost, in rows scored: a customer is one, an explained one several hundred. Who does
    not fit is answered 429 with `code: busy`."""
    max_explained: int = Field(20, gt=0)
    """Customers a request that asks for reasons; more is refused with a 400."""
    store_timeout_ms: int = Field(250, gt=0)
    """How long a worker waits for the feature store; then last known values, or a 503."""
    prediction_log: bool = True
    """Every scored customer to Parquet segments in the workspace's `serving/predictions`."""
    prediction_log_kafka: str | None = None
    """`host:port/topic`: to Kafka instead."""
    prediction_log_window_s: float = Field(5, gt=0)
    """How long a segment is gathered before it is closed."""
    tracing: Tracing = Tracing()
    token_days: int = Field(90, gt=0)
    """How long TorchServe's own tokens are good; the server is replaced, losing nothing, before they end."""
    pass_environment: tuple[str, ...] = ()
    """Further variables of our environment that workers are given, `AWS_*` for a store that asks for it: see
    serving/environment.py for what they get anyway.
    """
    heap: str = "256m"
    """Heap of TorchServe's JVM."""
    jvm_parallelism: int = Field(2, gt=0)
    """Threads of the JVM's common pool, which writes the answers."""

    @property
    def batching(self) -> Batching:
        return self.latency if self.profile == "latency" else self.throughput


class Tls(Config):
    enabled: bool | None = None
    """null: on where `gateway.host` is not loopback."""
    certificate: Path | None = None
    """PEM, the gateway's own first; null: a pair that the workspace makes for itself, for local use."""
    private_key: Path | None = None
    """PEM, mode 600."""
    client_ca: Path | None = None
    """PEM: who connects shows a certificate that one of these signed (mTLS)."""
    client_certificate: Path | None = None
    """PEM: the certificate that this workspace's own client presents where `client_ca` is set."""
    client_key: Path | None = None
    """PEM: the private key of `client_certificate`."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for one, other in (("certificate", "private_key"), ("client_certificate", "client_key")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise ValueError(f"{one} and {other}: give both or neither")
        if self.enabled is False and self.client_ca is not None:
            raise ValueError("client_ca asks clients for certificates, and enabled: false turns TLS off")
        return self


class GatewayConfig(Config):
    enabled: bool = True
    """false: `churn serve` runs TorchServe alone, on loopback, with its own token."""
    host: str = "127.0.0.1"
    """Address at which the gateway listens; `0.0.0.0` for other machines."""
    port: int = Field(0, ge=0, le=65535)
    """0: the system chooses. `configs/gateway.yaml` has 8080: clients know a server by its address."""
    tls: Tls = Tls()
    keys: bool = True
    """Ask for an API key; false only where nobody else reaches the machine."""
    threads: int = Field(1, gt=0)
    """Worker threads of Envoy."""
    timeout_s: float = Field(30, gt=0)
    """Time after which a request without an answer is answered 504."""
    max_in_flight: int = Field(2048, gt=0)
    """Requests on their way at once; one more is answered 503 at once."""
    max_memory_bytes: int = Field(1_073_741_824, gt=0)
    """What Envoy may hold; requests are refused with a 503 before it is reached, whatever clients send."""
    requests_per_s: int = Field(20_000, gt=0, le=4_000_000)
    """Requests per second and API key (per address where keys are off); more are answered 429. A key may have
    a quota of its own."""
    burst: int = Field(40_000, gt=0, le=4_000_000)
    """Requests that a key may send at once, beyond its rate."""
    health_interval_s: float = Field(1, gt=0)
    """How often a worker is asked for a real prediction; two failures in a row are "not ready"."""
    drain_timeout_s: float = Field(60, gt=0)
    """How long a stop waits, at most, for requests on their way and for those who still ask."""

    @property
    def uses_tls(self) -> bool:
        if self.tls.enabled is not None:
            return self.tls.enabled
        return self.host not in LOOPBACK or self.tls.client_ca is not None

    @model_validator(mode="after")
    def _shut(self) -> Self:
        if not self.keys and self.host not in LOOPBACK:
            raise ValueError(f"keys cannot be off on {self.host}: anybody could ask; use host 127.0.0.1")
        return self
