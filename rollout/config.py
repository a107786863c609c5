"""The settings in `configs/rollout.yaml`."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from core.config import Config
from rollout.rules import Rules
from rollout.rules.latency import Latency


class Stage(Config):
    """One weight of the plan."""

    weight: int = Field(ge=0, le=100)
    """Percent of the customers that the canary answers."""
    mirror: bool = False
    """Copy stable's requests to the canary, whose answers are thrown away; only at weight 0."""
    min_s: float = Field(0, ge=0)
    """Shortest duration of the stage."""
    max_s: float = Field(gt=0)
    """After so long without enough evidence, `on_timeout` decides."""
    min_requests: int = Field(0, ge=0)
    """Requests that the canary must have answered in this stage before the next one."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.mirror and self.weight:
            raise ValueError("mirror: only at weight 0; a customer's own answer is no copy")
        if self.max_s < self.min_s:
            raise ValueError("max_s: shorter than min_s")
        return self


class Notify(Config):
    webhook: str | None = None
    """URL that receives each decision as JSON; ${NAME} is replaced from the environment."""
    slack: str | None = None
    """URL of an incoming webhook, in Slack's format."""


class PrometheusConfig(Config):
    """The series of this service, and the credentials for Prometheus."""

    job: str | None = None
    """The job that scrapes the workers; null: the only one. Two would count each request twice."""
    service_label: str = "serving_kserve_io_inferenceservice"
    """The label of the series that names the InferenceService, from a monitor's podTargetLabels."""
    gateway: Literal["istio", "queue-proxy", "queue-proxy-otel", "envoy"] | None = None
    """The gateway whose requests, errors and latencies are judged instead of the handler's, so that requests
    which never reached a handler are included. `queue-proxy-otel`: Knative's from 1.19 on."""
    gateway_job: str | None = None
    """The job that scrapes the gateway; null: the one that has its series."""
    token_file: Path | None = None
    """Contains a bearer token; it may be replaced while a controller runs."""
    user: str | None = None
    """User of HTTP basic authentication, with `password_file`."""
    password_file: Path | None = None
    """File with the password of `user`."""
    ca_file: Path | None = None
    """Certificates for checking Prometheus' certificate; null: the system's."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file: give both, or token_file")
        if self.token_file is not None and self.user is not None:
            raise ValueError("token_file: give it, or user and password_file")
        return self


class KServeConfig(Config):
    name: str = "churn"
    """Name of the InferenceService."""
    namespace: str = "churn"
    """Namespace of the InferenceService."""
    context: str | None = None
    """The context of kubeconfig; null: the current one, or the pod's own account."""
    runtime: str = "churn-torchserve"
    """Name of the ServingRuntime."""
    gateway_url: str | None = Field(None, pattern=r"^https?://[^\s]+$")
    """The URL of Knative's ingress. With it, a canary is ready when it has answered a prediction request to
    its own host (tag `latest`); null: the probes of its pods decide, as in Standard mode."""
    prometheus_url: str | None = Field(None, pattern=r"^https?://[^\s]+$")
    """The Prometheus that scrapes the workers (kserve/base/metrics.yaml), the source of evidence."""
    prometheus: PrometheusConfig = PrometheusConfig()
    timeout_s: float = Field(10, gt=0)
    """How long one action waits for the cluster before it fails with what is missing; the controller repeats
    it. Well below `lease_s`, after which another controller takes the rollout."""


class Rehearsal(Config):
    """The canary at the end of `churn run`: the same controller and rules with a short plan."""

    stages: tuple[Stage, ...] = Field(min_length=1)
    """As `rollout.stages`, shorter."""
    watch_s: float = Field(5.0, ge=0)
    """As `rollout.watch_s`."""
    tick_s: float = Field(0.5, gt=0)
    """As `rollout.tick_s`."""
    block_s: float = Field(0.5, gt=0)
    """As `rollout.block_s`."""
    requests_per_s: float = Field(100.0, gt=0)
    """Requests per second that are replayed."""
    customers: int = Field(5000, gt=0)
    """Customers of the source, requested in the order of its rows, then again from the first."""
    clients: int = Field(4, gt=0)
    """Connections, and so the largest number of requests at a time."""
    warm_s: float = Field(5.0, ge=0)
    """How long a new canary gets copies of requests before it is judged."""
    latency: Latency | None = None
    """Replaces `rules.latency`, because a busy machine is slow whatever the model is."""
    prediction_log_window_s: float = Field(1.0, gt=0)
    """After how long a score can be judged."""


class RolloutConfig(Config):
    target: Literal["envoy", "knative", "standard"] = "envoy"
    """Where traffic is split: Envoy on one machine, or KServe in its mode Knative or Standard."""
    database: str = "sqlite:///{workspace}/rollout.db"
    """An SQLAlchemy URI: state, history and lease are stored there."""
    stages: tuple[Stage, ...] = Field(min_length=1)
    """The plan: weights that do not fall, the last one 100."""
    on_timeout: Literal["roll_back", "advance", "pause"] = "roll_back"
    """What happens when a stage's longest time is over without enough evidence."""
    alpha: float = Field(0.01, gt=0, lt=0.5)
    """The largest probability with which an identical canary is rolled back, over all rules and looks."""
    rules: Rules = Rules()
    tick_s: float = Field(1.0, gt=0)
    """How often the controller observes and decides."""
    block_s: float = Field(2.0, gt=0)
    """The length of the blocks of time in which latency is judged, and failures where the canary serves
    alone. Each block counts once: longer than the machine's stalls, far shorter than a stage."""
    lease_s: float = Field(30.0, gt=0)
    """After so long without a renewal of its lease, a controller loses the rollout to the next one."""
    ready_timeout_s: float = Field(180.0, gt=0)
    """Time in which the canary has to become ready, and a change of the traffic has to be done."""
    capacity_timeout_s: float = Field(900.0, gt=0)
    """How long pods may wait for a node. An autoscaler of nodes takes 2 to 5 minutes to add one."""
    unready_timeout_s: float = Field(15.0, gt=0)
    """How long a canary that was ready may be unready: enough for a pod that moves to another node."""
    watch_s: float = Field(60.0, ge=0)
    """How long after promotion the candidate is still judged, and taken back where it harms."""
    reach_timeout_s: float = Field(120.0, gt=0)
    """How long the target may be unreachable before the rollout is given up: rolled back when it is
    reachable."""
    retention_days: float = Field(90, gt=0)
    """How long after a rollout's end its counts are stored, by which it can be judged again. Decisions and
    their numbers are never removed."""
    store: str | None = None
    """Where `churn deploy` writes models: a path or URI (s3://...); null: the workspace's model store."""
    segments: tuple[str, ...] = ()
    """Columns of the prediction log's features, each value of which is a segment that is judged separately.
    Without any, rule `segments` has no share of alpha."""
    labels: Path | None = None
    """Outcomes as they become known, on one machine: Parquet of user_id (masked), event_timestamp (the end of
    the horizon), churned. It may grow. Without it, rule `outcomes` has no share of alpha."""
    notify: Notify = Notify()
    rehearsal: Rehearsal | None = None
    """null: `churn run` ends without a canary."""
    kserve: KServeConfig = KServeConfig()
    health_address: str | None = Field(None, pattern=r"^[^:\s]+:\d+$")
    """host:port at which `churn rollout run` answers /livez, /readyz and /metrics; null: nowhere."""

    @model_validator(mode="after")
    def _weights_grow(self) -> Self:
        _check_weights("stages", self.stages)
        if self.rehearsal is not None:
            _check_weights("rehearsal.stages", self.rehearsal.stages)
        return self


def _check_weights(key: str, stages: tuple[Stage, ...]) -> None:
    weights = [stage.weight for stage in stages]
    if weights != sorted(weights):
        raise ValueError(f"{key}: weights must not fall")
    if weights[-1] != 100:
        raise ValueError(f"{key}: the last weight is 100, so that promotion changes no customer's answer")
