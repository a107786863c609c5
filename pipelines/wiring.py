"""Builds a controller from the settings: store, target, evidence, rules, registry, notices."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
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
from rollout.targets.target import ClusterTarget, Target

if TYPE_CHECKING:
    from rollout.observers.prediction_log import LogSource
    from serving.supervisor import Supervisor

Observe = Callable[[RolloutConfig, Rollout], Observer]
"""Makes the source of evidence for a rollout, from the plan that the rollout was started with."""


def _nothing() -> None:
    """Nothing is declared beside the servers of one machine."""


def utc_now() -> datetime:
    """The present time; only the edge of the program calls it."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Replacements:
    """Parts of a controller in place of those that the settings describe; None: as in the settings."""

    store: Store | None = None
    registry: RegistryProjection | None = None
    notify: Notify | None = None
    clock: Callable[[], datetime] = utc_now
    sleep: Callable[[float], None] | None = None


class Wiring:
    """Everything that a controller needs. `churn serve`, `churn rollout run` and the canary at the end of
    `churn run` differ only in the arguments."""

    def __init__(
        self,
        settings: Stages,
        target: Target,
        observe: Observe,
        over: Flag | None = None,
        replaced: Replacements | None = None,
    ) -> None:
        config, replaced = settings.rollout, replaced or Replacements()
        self._config, self._model, self._over = config, settings.serving.model_name, over or Flag()
        self._target, self._observe = target, observe
        self.store = replaced.store or Store(config.database, config.lease_s)
        self.notifier: Notifier | None = None if replaced.notify is not None else notifier(config.notify)
        self._notify: Notify = replaced.notify or self.notifier or no_notice
        self._clock, self._sleep = replaced.clock, replaced.sleep or self._wait
        self._registry = replaced.registry or ModelRegistry(
            settings.training, lambda: locked_by(self.store, settings.training.model_name, self._clock)
        )
        self._tidy: Callable[[], None] = _nothing
        self.health = Health()

    @classmethod
    def on_this_machine(
        cls, settings: Stages, supervisor: "Supervisor", over: Flag, clock_offset: timedelta
    ) -> Self:
        """`clock_offset`: the difference of the workers' clock to the one of this process."""
        from rollout.observers.live import LiveObserver
        from rollout.targets.envoy import EnvoyTarget

        def observe(config: RolloutConfig, rollout: Rollout) -> Observer:
            horizon, log = settings.features.horizon, _prediction_log(settings, clock_offset)
            return LiveObserver(supervisor.gateway, log, config, clock_offset, config.labels, horizon)

        return cls(settings, EnvoyTarget(supervisor), observe, over)

    @classmethod
    def on_cluster(cls, settings: Stages, target: ClusterTarget, over: Flag) -> Self:
        """Evidence comes from Prometheus. Raises ConfigError without `rollout.kserve.prometheus_url`."""
        wiring = cls(settings, target, _cluster_observer, over)
        wiring._tidy = target.tidy
        return wiring

    def controller(self, rollout: Rollout) -> Controller:
        """The controller of a rollout, by the plan that it was started with."""
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
        """Controls each rollout of the model that is started, until `over` is set."""
        log_to_stderr()
        reconcile = Reconciler(self.store, self._target, self._registry, self._model, self._clock, self._tidy)
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
        """Sends the notices that are still waiting."""
        if self.notifier is not None:
            self.notifier.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, seconds: float) -> None:
        self._over.wait(seconds)


def log_to_stderr() -> None:
    """Writes the controller's decisions to the standard error of its process."""
    log = logging.getLogger("churn.rollout")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s rollout: %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)


def _prediction_log(settings: Stages, clock_offset: timedelta) -> "LogSource | None":
    """Where this machine's servers write their predictions; None where none are written.

    Raises ConfigError for settings of Kafka that cannot be used.
    """
    from pipelines.prediction_log import topic_of
    from rollout.observers.log_files import LogFiles
    from rollout.observers.log_topic import LogTopic

    serving = settings.serving
    if serving.prediction_log_kafka is not None:
        return LogTopic(*topic_of(serving.prediction_log_kafka), clock_offset)
    return LogFiles(settings.files.predictions) if serving.prediction_log else None


def _cluster_observer(config: RolloutConfig, rollout: Rollout) -> Observer:
    from rollout.observers.prometheus import PrometheusObserver

    kserve = config.kserve
    if kserve.prometheus_url is None:
        raise ConfigError(
            "rollout.kserve.prometheus_url: needed for the evidence of a cluster; give Prometheus' address"
        )
    return PrometheusObserver(kserve.prometheus_url, rollout.candidate.version, config)
