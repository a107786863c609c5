"""A controller put together from the settings: store, target, evidence, rules, registry, notices."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Event as Flag
from typing import TYPE_CHECKING, Self

from core.errors import ConfigError
from pipelines.context import Stages
from rollout.attendant import attend
from rollout.config import RolloutConfig
from rollout.controller import Controller
from rollout.health import Health
from rollout.notify import Notifier, Notify, no_notice, notifier
from rollout.observers.observer import Observer
from rollout.reconcile import Reconciler
from rollout.registry import ModelRegistry, RegistryProjection, locked_by
from rollout.retention import Retention
from rollout.rules import rules_of
from rollout.session import Clock, Connections
from rollout.state import Rollout
from rollout.store import Store
from rollout.targets.target import Target

if TYPE_CHECKING:
    from serving.supervisor import Supervisor

Observe = Callable[[RolloutConfig, Rollout], Observer]
"""Where evidence of a rollout comes from, by the plan that it was started with."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class Wiring:
    """Everything that a controller needs. `churn serve`, `churn rollout run` and the canary at the end of
    `churn run` differ only in what they give."""

    def __init__(
        self,
        settings: Stages,
        target: Target,
        observe: Observe,
        *,
        store: Store | None = None,
        registry: RegistryProjection | None = None,
        notify: Notify | None = None,
        clock: Callable[[], datetime] = utc_now,
        sleep: Callable[[float], None] | None = None,
        over: Flag | None = None,
    ) -> None:
        config = settings.rollout
        self._config, self._model, self._over = config, settings.serving.model_name, over or Flag()
        self._target, self._observe = target, observe
        self.store = store or Store(config.database, config.lease_s)
        self.notifier: Notifier | None = None if notify is not None else notifier(config.notify)
        self._notify: Notify = notify or self.notifier or no_notice
        self._clock, self._sleep = clock, sleep or self._wait
        self._registry = registry or ModelRegistry(
            settings.training, lambda: locked_by(self.store, settings.training.model_name, clock)
        )
        self.health = Health()

    @classmethod
    def on_this_machine(
        cls, settings: Stages, supervisor: "Supervisor", over: Flag, clock_offset: timedelta
    ) -> Self:
        """`clock_offset`: what the workers' clock shows more than ours."""
        from rollout.observers.live import LiveObserver
        from rollout.targets.envoy import EnvoyTarget

        log = settings.files.predictions if settings.serving.prediction_log else None
        log = None if settings.serving.prediction_log_kafka is not None else log

        def observe(config: RolloutConfig, rollout: Rollout) -> Observer:
            horizon = settings.features.horizon
            return LiveObserver(supervisor.gateway, log, config, clock_offset, config.labels, horizon)

        return cls(settings, EnvoyTarget(supervisor), observe, over=over)

    @classmethod
    def on_cluster(cls, settings: Stages, target: Target, over: Flag) -> Self:
        return cls(settings, target, _cluster_observer, over=over)

    def controller(self, rollout: Rollout) -> Controller:
        """By the plan that the rollout was started with."""
        config = rollout.planned(self._config)
        return Controller(
            config,
            rules_of(config),
            Connections(
                self.store, self._target, self._observe(config, rollout), self._registry, self._notify
            ),
            Clock(self._clock, self._sleep),
        )

    def attend(self) -> None:
        """Control the model's rollouts as they come, until `over` is set."""
        log_to_stderr()
        reconcile = Reconciler(self.store, self._target, self._registry, self._model, self._clock)
        retention = Retention(self.store, self._config.retention_days, self._clock)

        def between_rollouts() -> None:
            reconcile()
            retention()

        attend(
            self.store,
            self._model,
            self.controller,
            self._over,
            self._config.tick_s,
            between_rollouts,
            self.health,
        )

    def close(self) -> None:
        """Gives notices that are on their way a last chance."""
        if self.notifier is not None:
            self.notifier.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, seconds: float) -> None:
        self._over.wait(seconds)


def log_to_stderr() -> None:
    """Decisions are lines of the process that takes them, whatever else it shows."""
    log = logging.getLogger("churn.rollout")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s rollout: %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)


def _cluster_observer(config: RolloutConfig, rollout: Rollout) -> Observer:
    from rollout.observers.prometheus import PrometheusObserver

    kserve = config.kserve
    if kserve.prometheus_url is None:
        raise ConfigError(
            "rollout.kserve.prometheus_url: where evidence of a cluster comes from; give Prometheus' address"
        )
    return PrometheusObserver(kserve.prometheus_url, rollout.candidate.version, config)
