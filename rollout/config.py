"""What `configs/rollout.yaml` may say."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from core.config import Config


class Stage(Config):
    """One weight of the plan."""

    weight: int = Field(ge=0, le=100)
    """Percent of the customers that the canary answers."""
    mirror: bool = False
    """Copy stable's requests to the canary, whose answers nobody sees; only at weight 0."""
    min_s: float = Field(0, ge=0)
    """Shortest duration of the stage."""
    max_s: float = Field(gt=0)
    """After so long without enough evidence, `on_timeout` decides."""
    min_requests: int = Field(0, ge=0)
    """That the canary has to have answered in this stage before the next."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.mirror and self.weight:
            raise ValueError("mirror: only at weight 0; a customer's own answer is no copy")
        if self.max_s < self.min_s:
            raise ValueError("max_s: shorter than min_s")
        return self


class ErrorRate(Config):
    tolerance: float = Field(0.0, ge=0, lt=1)
    """How much higher than stable's rate is no harm."""


class Latency(Config):
    objective_ms: float = Field(250, gt=0)
    """A request that takes longer is slow."""
    tolerance: float = Field(0.01, ge=0, lt=1)
    """How much larger the share of slow requests may be."""
    max_p99_ratio: float = Field(1.5, gt=1)
    """How many times slower the canary's p99 may be. What happens below the p99 is no harm to this rule."""
    min_requests: int = Field(500, gt=0)
    """Of stable, before its p99 is known well enough to compare with."""


class FeatureHealth(Config):
    tolerance: float = Field(0.01, ge=0, lt=1)
    """How much larger the shares of missing, stale and degraded customers may be."""
    min_customers: int = Field(50, gt=0)
    """Scored by the canary over all stages, by the prediction log, before the rule says yes."""


class ScoreShift(Config):
    tolerance: float = Field(0.05, gt=0, lt=1)
    """How far the mean score may move from stable's (on the same customers, where pairs are known)."""
    min_customers: int = Field(50, gt=0)
    """Customers scored by the canary before the rule can let it advance."""


class DecisionRate(Config):
    tolerance: float = Field(0.10, gt=0, lt=1)
    """How far the share of `High Risk` may move from stable's, either way."""
    min_customers: int = Field(50, gt=0)
    """Customers scored by the canary before the rule can let it advance."""


class Outcomes(Config):
    log_loss_tolerance: float = Field(0.01, ge=0)
    """How much higher than stable's the log-loss may be."""
    calibration_tolerance: float = Field(0.05, gt=0, lt=1)
    """How far mean score and churn rate may lie apart beyond stable's own gap."""


class Segments(Config):
    tolerance: float = Field(0.10, gt=0, lt=1)
    """How far a segment's mean score may move."""
    min_customers: int = Field(50, gt=0)
    """Customers of a segment scored by the canary before it is judged."""


class Rules(Config):
    """null switches a rule off."""

    error_rate: ErrorRate | None = ErrorRate()
    latency: Latency | None = Latency()
    features: FeatureHealth | None = FeatureHealth()
    score_shift: ScoreShift | None = ScoreShift()
    decision_rate: DecisionRate | None = DecisionRate()
    outcomes: Outcomes | None = Outcomes()
    segments: Segments | None = Segments()


class Notify(Config):
    webhook: str | None = None
    """URL that gets each decision as JSON; from the environment: ${NAME}."""
    slack: str | None = None
    """URL of an incoming webhook, in Slack's format."""


class PrometheusConfig(Config):
    """Which series are this service's, and who we are to Prometheus."""

    job: str | None = None
    """That scrapes the workers; null: whichever does, if it is one. Two would count each request twice."""
    service_label: str = "serving_kserve_io_inferenceservice"
    """Of the series, that names the InferenceService: podTargetLabels of a monitor make it."""
    gateway: Literal["istio", "queue-proxy", "queue-proxy-otel", "envoy"] | None = None
    """Whose counts of requests, errors and latencies are judged instead of the handler's: what never reached
    a handler is among them. `queue-proxy-otel`: Knative's from 1.19 on."""
    gateway_job: str | None = None
    """The job that scrapes the gateway; null: the one that has its series."""
    token_file: Path | None = None
    """Holds a bearer token; it may be replaced while a controller runs."""
    user: str | None = None
    """User of HTTP basic authentication, with `password_file`."""
    password_file: Path | None = None
    """File with the password of `user`."""
    ca_file: Path | None = None
    """Certificates that Prometheus' own is checked by; null: the system's."""

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
    """Of kubeconfig; null: the current one, or the pod's own account."""
    runtime: str = "churn-torchserve"
    """Name of the ServingRuntime."""
    gateway_url: str | None = None
    """Where Knative's ingress is reached. With it a canary is asked for a prediction, by its own host (tag
    `latest`), before it counts as ready; null: the probes of its pods are believed, as in Standard mode."""
    prometheus_url: str | None = None
    """Of the Prometheus that scrapes the workers (kserve/base/metrics.yaml): where evidence comes from."""
    prometheus: PrometheusConfig = PrometheusConfig()
    timeout_s: float = Field(10, gt=0)
    """How long one action waits for the cluster before it says what is missing; the controller then does it
    again. Well below `lease_s`: who waits longer has lost the rollout to the next controller."""


class Rehearsal(Config):
    """The canary at the end of `churn run`: the same controller and rules, a short plan."""

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
    """Of the source, asked for in the order of its rows, then again from the first."""
    clients: int = Field(4, gt=0)
    """Connections that ask: so many requests are on their way at most."""
    warm_s: float = Field(5.0, ge=0)
    """How long a fresh canary gets copies of requests before anything is judged."""
    latency: Latency | None = None
    """Instead of `rules.latency`: on a busy machine, slow moments are no fault of a model."""
    prediction_log_window_s: float = Field(1.0, gt=0)
    """How soon a score can be judged."""


class RolloutConfig(Config):
    target: Literal["envoy", "knative", "standard"] = "envoy"
    """Where traffic is split: Envoy on one machine, or KServe in its mode Knative or Standard."""
    database: str = "sqlite:///{workspace}/rollout.db"
    """Any SQLAlchemy URI; state, history and lease."""
    stages: tuple[Stage, ...] = Field(min_length=1)
    """The plan: weights that do not fall, the last one 100."""
    on_timeout: Literal["roll_back", "advance", "pause"] = "roll_back"
    """What happens when a stage's longest time is over without enough evidence."""
    alpha: float = Field(0.01, gt=0, lt=0.5)
    """The probability that an identical canary is ever rolled back, over all rules and looks."""
    rules: Rules = Rules()
    tick_s: float = Field(1.0, gt=0)
    """How often the controller observes and decides."""
    block_s: float = Field(2.0, gt=0)
    """Latency, and failures where nobody is beside the canary, are judged in blocks of so many seconds, each
    of which counts once: longer than the machine's stalls, far shorter than a stage."""
    lease_s: float = Field(30.0, gt=0)
    """A controller that is silent for so long has lost the rollout to the next."""
    ready_timeout_s: float = Field(180.0, gt=0)
    """Time in which the canary has to become ready, and a change of the traffic has to be done."""
    unready_timeout_s: float = Field(15.0, gt=0)
    """How long a canary that was ready may not be: a pod that moves to another node is back by then."""
    watch_s: float = Field(60.0, ge=0)
    """After promotion, how long it can still fall back by itself."""
    reach_timeout_s: float = Field(120.0, gt=0)
    """How long the target may be out of reach before the rollout is given up (rolled back when reached)."""
    retention_days: float = Field(90, gt=0)
    """How long after a rollout's end its counts are stored, by which it can be judged again; decisions and
    their numbers stay for good."""
    store: str | None = None
    """Where `churn deploy` puts models: a path or URI (s3://...); null: the workspace's model store."""
    segments: tuple[str, ...] = ()
    """Columns of the prediction log's features, of which each value is guarded for itself; without any, rule
    `segments` has no part of alpha."""
    labels: Path | None = None
    """Outcomes as they become known, on one machine: Parquet of user_id (masked), event_timestamp (the end of
    the horizon), churned. It may grow. Without it rule `outcomes` has no part of alpha."""
    notify: Notify = Notify()
    rehearsal: Rehearsal | None = None
    """null: `churn run` ends without a canary."""
    kserve: KServeConfig = KServeConfig()
    health_address: str | None = Field(None, pattern=r"^[^:\s]+:\d+$")
    """host:port at which `churn rollout run` answers /livez, /readyz and /metrics; null: nowhere."""

    @model_validator(mode="after")
    def _grows(self) -> Self:
        _refuse_odd("stages", self.stages)
        if self.rehearsal is not None:
            _refuse_odd("rehearsal.stages", self.rehearsal.stages)
        return self


def _refuse_odd(key: str, stages: tuple[Stage, ...]) -> None:
    weights = [stage.weight for stage in stages]
    if weights != sorted(weights):
        raise ValueError(f"{key}: weights must not fall")
    if weights[-1] != 100:
        raise ValueError(f"{key}: the last weight is 100, so that promotion changes nobody's answer")
