"""The settings in `configs/serving.yaml` and `configs/gateway.yaml`."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from core.config import Config
from serving.addresses import LOOPBACK, LOOPBACK_HOSTS


class Batching(Config):
    """How TorchServe collects requests into a batch for a worker."""

    batch_size: int = Field(gt=0)
    """Most requests in one batch."""
    max_batch_delay_ms: int = Field(1, gt=0)
    """With 0, a single request waits 107 ms in TorchServe 0.12."""


class Tracing(Config):
    """OpenTelemetry spans of requests. Needs the extra `otel`."""

    endpoint: str | None = Field(None, pattern=r"^https?://[^\s]+$")
    """Base URL of an OTLP receiver over HTTP (http://127.0.0.1:4318); null: no tracing, and no cost."""
    sample_ratio: float = Field(0.01, ge=0, le=1)
    """The share of requests without a `traceparent` that are traced. With one, its flag decides."""


class ServingConfig(Config):
    # Workers get the attributes that have the name of a setting in handlers/settings.py.
    model_name: str = Field("churn", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the model in the paths of requests."""
    host: str = LOOPBACK
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
    pod_response_timeout_s: int = Field(5, gt=0)
    """The same in a pod of a cluster, where no training runs beside it. Requests that met the worker fail
    after it, so it is well below the time-outs of route (`gateway.timeout_s`) and client."""
    start_timeout_s: float = Field(90, gt=0)
    """Time in which a server has to become ready."""
    job_queue_size: int = Field(1000, gt=0)
    """Requests that may wait for a worker. Another one is answered 503 at once."""
    max_request_bytes: int = Field(1_048_576, gt=0)
    """Largest body of a request, as sent and once it is decompressed; a larger one is answered 413."""
    max_instances: int = Field(1000, gt=0)
    """Customers in a request. More are refused with a 400."""
    batch_rows: int = Field(65_536, gt=0)
    """Rows that a batch may score: one for a customer, several hundred for an explained customer. Customers
    beyond it are answered 429 with `code: busy`."""
    max_explained: int = Field(20, gt=0)
    """Customers in a request with reasons. More are refused with a 400."""
    store_timeout_ms: int = Field(250, gt=0)
    """How long a worker waits for the feature store. After that it uses last known values, or answers 503."""
    prediction_log: bool = True
    """Whether scored customers are recorded, as Parquet in the workspace's `serving/predictions`."""
    prediction_log_kafka: str | None = None
    """`host:port/topic`: the records are sent to Kafka instead."""
    prediction_log_window_s: float = Field(5, gt=0)
    """How long records are collected in a segment before it is closed."""
    tracing: Tracing = Tracing()
    token_days: int = Field(90, gt=0)
    """How long TorchServe's own tokens are valid. Before they expire, the server is replaced without losing a
    request."""
    pass_environment: tuple[str, ...] = ()
    """Further environment variables that workers get, such as `AWS_*` for a store that needs them.
    serving/environment.py lists those that they always get."""
    heap: str = "256m"
    """Heap of TorchServe's JVM."""
    jvm_parallelism: int = Field(2, gt=0)
    """Threads of the JVM's common pool, which sends the answers."""

    @property
    def otel_endpoint(self) -> str | None:
        """The worker's setting of this name (handlers/settings.py)."""
        return self.tracing.endpoint

    @property
    def otel_ratio(self) -> float | None:
        """The worker's setting of this name; None without an endpoint here: the environment may have both."""
        return None if self.tracing.endpoint is None else self.tracing.sample_ratio

    @property
    def batching(self) -> Batching:
        return self.latency if self.profile == "latency" else self.throughput


class Tls(Config):
    enabled: bool | None = None
    """null: on when `gateway.host` is not loopback."""
    certificate: Path | None = None
    """PEM, the gateway's own first. null: a generated self-signed pair, for use on this machine."""
    private_key: Path | None = None
    """PEM, mode 600."""
    client_ca: Path | None = None
    """PEM: clients need a certificate that one of these signed (mTLS)."""
    client_certificate: Path | None = None
    """PEM: the certificate that this workspace's own client presents where `client_ca` is set."""
    client_key: Path | None = None
    """PEM: the private key of `client_certificate`."""

    @model_validator(mode="after")
    def _files_fit_together(self) -> Self:
        for one, other in (("certificate", "private_key"), ("client_certificate", "client_key")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise ValueError(f"{one} and {other}: give both or neither")
        if self.enabled is False and self.client_ca is not None:
            raise ValueError("client_ca requires certificates of clients, and enabled: false turns TLS off")
        return self


UNLIMITED = 4_000_000
"""The highest rate that Envoy's filter can express stands for none."""


class GatewayConfig(Config):
    enabled: bool = True
    """false: `churn serve` runs TorchServe alone, on loopback, with its own token."""
    host: str = LOOPBACK
    """Address at which the gateway listens; `0.0.0.0` for other machines."""
    port: int = Field(0, ge=0, le=65535)
    """0: the system chooses. `configs/gateway.yaml` has 8080, because clients need a constant address."""
    tls: Tls = Tls()
    keys: bool = True
    """Whether requests need an API key. false is possible on loopback only."""
    threads: int = Field(1, gt=0)
    """Worker threads of Envoy."""
    timeout_s: float = Field(30, gt=0)
    """Time after which a request without an answer is answered 504."""
    max_in_flight: int = Field(2048, gt=0)
    """Requests in flight. Another one is answered 503 at once."""
    max_memory_bytes: int = Field(1_073_741_824, gt=0)
    """Envoy's memory. Requests are refused with a 503 before it is reached, whatever clients send."""
    requests_per_s: int = Field(20_000, gt=0, le=UNLIMITED)
    """Requests per second and API key (per address where keys are off); more are answered 429. A key may have
    a quota of its own. 4000000: no limit."""
    burst: int = Field(40_000, gt=0, le=UNLIMITED)
    """Requests that a key may send at once, beyond its rate."""
    health_interval_s: float = Field(1, gt=0)
    """How often the health check requests a prediction. Two consecutive failures mean "not ready"."""
    drain_timeout_s: float = Field(60, gt=0)
    """How long a stop waits, at most, for requests in flight and for clients that still send requests."""

    @property
    def uses_tls(self) -> bool:
        if self.tls.enabled is not None:
            return self.tls.enabled
        return self.host not in LOOPBACK_HOSTS or self.tls.client_ca is not None

    @model_validator(mode="after")
    def _without_keys_only_on_loopback(self) -> Self:
        if not self.keys and self.host not in LOOPBACK_HOSTS:
            raise ValueError(
                f"keys cannot be off on {self.host}: other machines have access; use host 127.0.0.1"
            )
        return self
