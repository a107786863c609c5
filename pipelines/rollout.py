"""Starts and controls rollouts for the commands: the stable archive, the start, and the controller."""

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from threading import Event as Flag
from typing import TYPE_CHECKING

from core.errors import ConfigError, ServingError
from pipelines.context import Context, Stages
from rollout.config import RolloutConfig
from rollout.errors import RolloutError
from rollout.state import Change, Rollout
from rollout.targets.target import Candidate, ClusterTarget, NotYet

if TYPE_CHECKING:
    from rollout.database.fencing import Fence
    from rollout.store import Store
    from serving.supervisor import Companion, Supervisor

ON_THIS_MACHINE = "envoy"


def open_store(settings: Stages) -> "Store":
    """The database of rollouts. Raises RolloutError when it cannot be reached."""
    from rollout.store import Store

    return Store(settings.rollout.database, settings.rollout.lease_s)


def begin(context: Context, candidate: Candidate, reason: str) -> bool:
    """On a cluster where nothing serves yet, lets `candidate` serve and records it as stable.

    False: something serves, or is recorded as stable, so a rollout has to bring the candidate. Raises
    NotYet with the words of its pods when it is not ready within `rollout.ready_timeout_s`.
    """
    from pipelines.adopt import record_stable

    settings = context.settings
    config, model = settings.rollout, settings.serving.model_name
    if config.target == ON_THIS_MACHINE:
        return False
    store, target = open_store(settings), open_target(config)
    if store.stable(model) is not None:
        return False
    serving = target.serving()
    if serving is not None and serving.archive != candidate.archive and target.observe().serves:
        return False
    context.progress(f"first model {candidate.version}: its pods start")
    deadline = time.monotonic() + config.ready_timeout_s
    while True:
        try:
            target.begin(candidate)
            break
        except NotYet:
            if time.monotonic() >= deadline:
                raise
    record_stable(store, model, candidate, context.who, reason, context.as_of)
    return True


def start(context: Context, candidate: Candidate, reason: str, fence: "Fence | None" = None) -> Rollout:
    """Starts the rollout of `candidate` by writing it to the database, where the controller reads it.

    The candidate was verified before (pipelines/deploy.py). `fence`: of the retraining run that made it.
    Raises RolloutError while another rollout runs, if the candidate is stable already, or
    if nothing is stable to compare with and to return to.
    """
    settings, here = context.settings, context.settings.rollout.target == ON_THIS_MACHINE
    store, model = open_store(settings), settings.serving.model_name
    store.refuse_while_running(model)  # whose canary the cluster would show as one of no rollout
    previous = _served_here(settings, store) if here else _stable_on_cluster(context, store)
    if previous.sha256 == candidate.sha256:
        raise RolloutError(f"version {candidate.version} is stable already; there is nothing to roll out")
    if not here and previous.version == candidate.version:
        raise RolloutError(
            f"version {candidate.version}: is stable already as another archive of the same program; on a"
            " cluster metrics are labelled with the version, so the two could not be compared: train a model,"
            " or exchange the archive at once with your manifests and `churn rollout adopt`"
        )
    change = Change(candidate, previous, context.who, context.as_of, reason)
    return store.start(model, change, settings.rollout, fence=fence)


def _served_here(settings: Stages, store: "Store") -> Candidate:
    """The archive that serves on this machine: the running server's, or the recorded one if none runs.

    Raises RolloutError if nothing was ever served.
    """
    from pipelines.candidates import candidate_at
    from serving.client import running

    stable = store.stable(settings.serving.model_name)
    try:
        record = running(settings.files)
    except ServingError:
        if stable is None:
            raise RolloutError(
                "nothing is served yet that a canary could be compared with; start with: churn serve"
            ) from None
        return stable
    served = record.get("archive_sha256")
    if stable is None or (served and served != stable.sha256):
        return candidate_at(Path(record["archive"]))
    return stable


def _stable_on_cluster(context: Context, store: "Store") -> Candidate:
    """The archive that the cluster serves, which has to be the one recorded as stable.

    If none is recorded, it is recorded now, so that the first rollout can be undone too. Raises RolloutError
    if the cluster serves another archive.
    """
    from pipelines.adopt import adopted

    settings = context.settings
    stable = store.stable(settings.serving.model_name)
    target = open_target(settings.rollout)
    if stable is None:
        return adopted(context, store, target, "served when the first rollout began")
    from rollout.reconcile import differs

    if difference := differs(stable, target.observe()):
        raise RolloutError(f"target {target.name}: {difference}")
    return stable


def controller_thread(settings: Stages, clock_offset: timedelta = timedelta(0)) -> "Companion":
    """The function that `churn serve` runs beside the servers: the controller of this machine's rollouts.

    `clock_offset`: the difference of the workers' clock to the one of this process.
    """

    def work(supervisor: "Supervisor", over: Flag) -> None:
        from pipelines.wiring import Wiring

        with Wiring.on_this_machine(settings, supervisor, over, clock_offset) as wiring:
            wiring.attend()

    return work


def control(settings: Stages, over: Flag, progress: Callable[[str], None]) -> None:
    """Controls the rollouts of a cluster from this process, until `over` is set.

    Raises ConfigError for target `envoy`, whose controller runs in `churn serve`.
    """
    from pipelines.wiring import Wiring
    from rollout.health import Standing, answering

    config = settings.rollout
    with Wiring.on_cluster(settings, open_target(config), over) as wiring:
        if config.health_address is None or wiring.notifier is None:
            wiring.attend()
            return
        standing = Standing(wiring.store, settings.serving.model_name, wiring.health, wiring.notifier)
        longest_s = 2 * config.ready_timeout_s + config.lease_s
        with answering(config.health_address, standing, longest_s) as url:
            progress(f"health and metrics at {url}")
            wiring.attend()


def control_here(settings: Stages, rollout: Rollout, late: Callable[[], bool]) -> None:
    """Controls one rollout of a cluster to its end, or until `late` returns true."""
    from pipelines.wiring import Wiring, log_to_stderr

    log_to_stderr()
    with Wiring.on_cluster(settings, open_target(settings.rollout), Flag()) as wiring:
        wiring.controller(rollout).run(rollout.id, late)


def open_target(config: RolloutConfig) -> ClusterTarget:
    """The target of a cluster, by its name in the settings. Raises ConfigError for `envoy`."""
    try:
        return TARGETS[config.target](config)
    except KeyError:
        raise ConfigError(
            f"rollout.target {config.target}: its controller runs in `churn serve`, beside the gateway"
        ) from None


def how_to_control(config: RolloutConfig) -> str:
    """The command that runs a controller."""
    return "churn serve" if config.target == ON_THIS_MACHINE else "churn rollout run"


def _knative(config: RolloutConfig) -> ClusterTarget:
    from rollout.targets.kserve.knative import Knative

    return Knative.connect(config.kserve)


def _standard(config: RolloutConfig) -> ClusterTarget:
    from rollout.targets.kserve.standard import Standard

    return Standard.connect(config.kserve)


TARGETS: Mapping[str, Callable[[RolloutConfig], ClusterTarget]] = {"knative": _knative, "standard": _standard}
