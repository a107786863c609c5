"""A rollout put together from the settings: where traffic is split, what is looked at, who is told."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event as Flag
from typing import TYPE_CHECKING

from data.errors import ArchiveError, ConfigError
from pipelines.context import Context, Stages
from rollout.config import RolloutConfig
from rollout.errors import RolloutError
from rollout.state import Rollout
from rollout.targets.target import Candidate, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rollout.attendant import Make
    from rollout.observers.observer import Observer
    from rollout.store import Store
    from serving.supervisor import Companion, Supervisor

ON_THIS_MACHINE = "envoy"


def open_store(settings: Stages) -> "Store":
    """Raises RolloutError when `rollout.database` cannot be reached."""
    from rollout.store import Store

    return Store(settings.rollout.database, settings.rollout.lease_s)


def start(context: Context, candidate: Candidate, reason: str) -> Rollout:
    """Put `candidate` on trial: written to the database, for the controller to find.

    It has been checked already (pipelines/deploy.py). Raises RolloutError while another rollout runs, when it
    is stable already, or when nothing is stable that it could be compared with.
    """
    settings = context.settings
    store, model = open_store(settings), settings.serving.model_name
    previous = stable_now(settings, store)
    if previous is None and settings.rollout.target == ON_THIS_MACHINE:
        raise RolloutError(
            "nothing is served yet that a canary could be compared with; start with: churn serve"
        )
    if previous is not None and previous.sha256 == candidate.sha256:
        raise RolloutError(f"version {candidate.version} is stable already; there is nothing to roll out")
    return store.start(model, candidate, previous, settings.rollout, context.who, reason, context.as_of)


def stable_now(settings: Stages, store: "Store") -> Candidate | None:
    """What customers are answered by: the running server's word, then the history of rollouts."""
    if settings.rollout.target == ON_THIS_MACHINE:
        from data.errors import ServingError
        from serving.client import running

        try:
            archive = Path(running(settings.files)["archive"])
        except ServingError:
            pass
        else:
            return candidate_of(archive)
    return store.stable(settings.serving.model_name)


def candidate_of(archive: Path) -> Candidate:
    """An archive on this machine, by its content. Raises RolloutError when it cannot be read."""
    import zipfile

    try:
        content = archive.read_bytes()
        with zipfile.ZipFile(archive) as files:
            version = str(json.loads(files.read("bundle.json"))["model_version"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise RolloutError(f"{archive}: not an archive of ours ({error}); run `churn package`") from None
    return Candidate(str(archive), hashlib.sha256(content).hexdigest(), version)


def companion(settings: Stages, clock_offset: timedelta = timedelta(0)) -> "Companion":
    """What `churn serve` runs beside the servers: the controller of this machine's rollouts.

    `clock_offset`: what the workers' clock shows more than ours.
    """

    def accompany(supervisor: "Supervisor", over: Flag) -> None:
        from rollout.observers.live import LiveObserver
        from rollout.targets.envoy import EnvoyTarget

        log = settings.files.predictions if settings.serving.prediction_log else None
        log = None if settings.serving.prediction_log_kafka is not None else log

        def observer(config: RolloutConfig, rollout: Rollout) -> "Observer":
            horizon = settings.features.horizon
            return LiveObserver(supervisor.gateway, log, config, clock_offset, config.labels, horizon)

        with _maker(settings, open_store(settings), EnvoyTarget(supervisor), observer, over) as (store, make):
            from rollout.attendant import attend

            attend(store, settings.serving.model_name, make, over, settings.rollout.tick_s)

    return accompany


def control(settings: Stages, over: Flag) -> None:
    """Control the rollouts of a cluster from this process, until `over` is set.

    Raises ConfigError for target `envoy`, whose controller lives in `churn serve`.
    """
    from rollout.attendant import attend

    target = open_target(settings.rollout)
    with _maker(settings, open_store(settings), target, _cluster_observer, over) as (store, make):
        attend(store, settings.serving.model_name, make, over, settings.rollout.tick_s)


def control_here(settings: Stages, rollout: Rollout, late: Callable[[], bool]) -> None:
    """Control one rollout of a cluster to its end, or until it is `late`."""
    over = Flag()
    target = open_target(settings.rollout)
    with _maker(settings, open_store(settings), target, _cluster_observer, over) as (_, make):
        make(rollout).run(rollout.id, late)


def open_target(config: RolloutConfig) -> Target:
    """Of a cluster, by its name in the settings."""
    try:
        return TARGETS[config.target](config)
    except KeyError:
        raise ConfigError(
            f"rollout.target {config.target}: its controller runs in `churn serve`, beside the gateway"
        ) from None


def how_to_control(config: RolloutConfig) -> str:
    """The command that runs a controller."""
    return "churn serve" if config.target == ON_THIS_MACHINE else "churn rollout run"


class Served:
    """Which archive `churn serve` serves.

    When it starts: what rollouts say is stable, so that neither a candidate on trial nor one that was taken
    back comes to all customers by a restart; before the first rollout the registry's champion, which a canary
    at the end of `churn run` made so, and without one what was packaged last. When somebody asks for a change
    (`churn reload`): what was packaged last, unless a rollout runs.
    """

    def __init__(self, settings: Stages) -> None:
        self._settings, self._store = settings, open_store(settings)
        self._model, self._started = settings.serving.model_name, False

    def __call__(self) -> Path:
        """Raises ServingError, ArchiveError or RolloutError where there is none that may be served."""
        from pipelines.live import trusted_archive

        first, self._started = not self._started, True
        stable = self._store.stable(self._model)
        if first and stable is not None and stable.path.is_file():
            return trusted(self._settings, stable)
        if first and stable is None and (kept := _champion(self._settings)) is not None:
            return kept
        if not first and (running := self._store.current(self._model)) is not None:
            raise RolloutError(
                f"rollout {running.id} is running; wait for its end or `churn rollout abort --reason ...`"
            )
        return trusted_archive(self._settings)

    def changed(self, archive: Path, who: str, now: datetime) -> None:
        """For the record, after a change that somebody asked for."""
        candidate, before = candidate_of(archive), self._store.stable(self._model)
        if before is None or before.sha256 != candidate.sha256:
            reason = f"{who}: served at once by churn reload, without a rollout"
            self._store.served_at_once(self._model, candidate, before, who, reason, now)


def _champion(settings: Stages) -> Path | None:
    """None: there is no champion, or none that could serve with the features of today."""
    from pipelines.champion import champion

    try:
        found = champion(settings)
    except ArchiveError:
        return None
    return None if found is None else found.path


def trusted(settings: Stages, candidate: Candidate) -> Path:
    """Its archive. Raises ArchiveError when its signature or content is not to be trusted."""
    from training.signing import trusted_signers
    from training.verify import verify_archive

    signers = trusted_signers(settings.training.trusted_signers, settings.files)
    verify_archive(candidate.path, signers, candidate.sha256)
    return candidate.path


def _cluster_observer(config: RolloutConfig, rollout: Rollout) -> "Observer":
    from rollout.observers.prometheus import PrometheusObserver

    kserve = config.kserve
    if kserve.prometheus_url is None:
        raise ConfigError(
            "rollout.kserve.prometheus_url: where evidence of a cluster comes from; give Prometheus' address"
        )
    return PrometheusObserver(kserve.prometheus_url, rollout.candidate.version, config)


def _knative(config: RolloutConfig) -> Target:
    from rollout.targets.knative import Knative

    return Knative.connect(config.kserve)


def _standard(config: RolloutConfig) -> Target:
    from rollout.targets.standard import Standard

    return Standard.connect(config.kserve)


TARGETS: Mapping[str, Callable[[RolloutConfig], Target]] = {"knative": _knative, "standard": _standard}


@contextmanager
def _maker(
    settings: Stages,
    store: "Store",
    target: Target,
    observer: "Callable[[RolloutConfig, Rollout], Observer]",
    over: Flag,
) -> "Iterator[tuple[Store, Make]]":
    """Builds a controller for each rollout, by the plan that the rollout was started with."""
    from rollout.controller import Controller
    from rollout.notify import notifier
    from rollout.registry import ModelRegistry
    from rollout.rules import rules_of

    _log_to_stderr()
    told = notifier(settings.rollout.notify)

    def make(rollout: Rollout) -> Controller:
        config = rollout.planned(settings.rollout)
        return Controller(
            config,
            store,
            target,
            observer(config, rollout),
            rules_of(config),
            lambda: datetime.now(UTC),
            lambda seconds: _sleep(over, seconds),
            ModelRegistry(settings.training),
            told,
        )

    try:
        yield store, make
    finally:
        told.close()


def _log_to_stderr() -> None:
    """Decisions are lines of the process that takes them, whatever else it shows."""
    log = logging.getLogger("churn.rollout")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s rollout: %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)


def _sleep(over: Flag, seconds: float) -> None:
    """Ends early when it is over."""
    over.wait(seconds)
