"""The canary at the end of `churn run`: a whole rollout on this machine, in real processes, in two minutes.

Two TorchServes run behind Envoy and get requests for customers of the source. Controller, target, observer
and rules are those of production; only the plan is short (`rollout.rehearsal`). Stable is the champion. If
there is no champion yet, or none that can be loaded, the new archive is deployed beside itself. Then nothing
is compared, but the rollout is shown to work before anything depends on it.

A model that is promoted here becomes the champion only if nothing is recorded as stable yet and the registry
is this workspace's own. A shared registry is never changed, nor is a server that `churn serve` runs; `churn
deploy` brings the model to it.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from core.errors import ChurnError, ServingError
from core.workspace import Workspace
from pipelines.candidates import champion, found_here
from pipelines.context import Context, Stages
from pipelines.deploy import deploy
from pipelines.live import EXAMPLES, customers_online, data_end, supervised
from pipelines.rollout import open_store
from pipelines.rollout_report import report_record
from pipelines.wiring import Replacements, Wiring
from rollout.config import Notify, Rehearsal, RolloutConfig
from rollout.notify import Notice
from rollout.observers.live import LiveObserver
from rollout.observers.log_files import LogFiles
from rollout.registry import ModelRegistry, OthersRegistry, RegistryProjection
from rollout.state import Change, Rollout
from rollout.store import Store
from rollout.targets.envoy import EnvoyTarget
from rollout.targets.target import Candidate, TargetState
from serving.client import predict
from serving.config import Tls
from serving.gateway.keys import own_key
from serving.gateway.program import envoy_program
from serving.gateway.traffic import Pace, Traffic
from serving.supervisor import Supervisor

SUPERVISOR_TICK_S = 0.2


class RolledBack(ChurnError):
    """The canary got requests of customers and was rolled back."""

    exit_code = 3


def rehearse(context: Context) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Rolls the archive that was packaged last out to replayed customers: the record of the rollout, and
    predictions of the promoted model for some of them (none after a rollback).

    The record has the key `left_out` and the reason if there was no rollout: no Envoy runs here, the plan is
    switched off, or the archive is the champion already. Every process that was started has stopped when this
    returns or raises.
    """
    settings = context.settings
    plan = settings.rollout.rehearsal
    if plan is None:
        return left_out("rollout.rehearsal is null"), []
    try:
        envoy_program()
    except ServingError as error:
        return left_out(str(error)), []
    candidate = deploy(replace(context, settings=_on_this_machine(settings, plan))).candidate
    recorded = open_store(settings).stable(settings.serving.model_name)
    try:
        stable = champion(settings, context.progress) if recorded is None else found_here(settings, recorded)
        lacking = "there is no champion yet"
    except ChurnError as error:
        stable, lacking = None, f"the champion cannot be loaded: {error}"
    if stable is not None and stable.sha256 == candidate.sha256:
        return left_out(f"version {candidate.version} is the champion already"), []
    return _Rehearsal(context, plan, candidate, stable, lacking, _registry(context, recorded)).run()


def left_out(reason: str) -> dict[str, Any]:
    """The record of a rehearsal that did not take place."""
    return {"left_out": reason}


def failure_of(record: dict[str, Any]) -> RolledBack | None:
    """The error for a canary that was rolled back; None if it was promoted, or there was no rehearsal."""
    if record.get("phase", "promoted") == "promoted":
        return None
    version = record["candidate"]["version"]
    return RolledBack(f"the canary of version {version} was taken back: {record['outcome']}")


def _registry(context: Context, recorded: Candidate | None) -> RegistryProjection:
    """The registry that a promotion here may change: this workspace's own, or none."""
    training = context.settings.training
    if recorded is not None:
        return OthersRegistry(f"version {recorded.version} serves customers")
    file = training.tracking_uri.removeprefix("sqlite:///")
    own = file != training.tracking_uri and Path(file).resolve().is_relative_to(context.files.root.resolve())
    if not own:
        return OthersRegistry("training.tracking_uri is shared with others, and this is a rehearsal")
    return ModelRegistry(training)


class _Rehearsal:
    """One rehearsal; `run` builds everything in the order of its dependencies."""

    def __init__(
        self,
        context: Context,
        plan: Rehearsal,
        candidate: Candidate,
        stable: Candidate | None,
        lacking: str,
        registry: RegistryProjection,
    ) -> None:
        self._context, self._plan = context, plan
        self._settings = _on_this_machine(context.settings, plan)
        self._config = self._settings.rollout
        self._candidate, self._stable, self._lacking = candidate, stable, lacking
        self._registry = registry
        self._files = Workspace(context.files.root / "rehearsal")

    def run(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        settings, files, progress = self._settings, self._files, self._context.progress
        # the workers' clock starts again each time, so older records would count as records of this rehearsal
        shutil.rmtree(files.root, ignore_errors=True)
        files.root.mkdir(parents=True)
        began, clock = time.monotonic(), self._context.now
        now, end = clock(), data_end(settings.files)
        first = self._stable or self._candidate
        customers = customers_online(settings, self._plan.customers)
        progress(f"starting the gateway and version {first.version} as stable")
        with supervised(settings, files, now, end, lambda: Path(first.archive)) as servers:
            observer = LiveObserver(servers.gateway, LogFiles(files.predictions), self._config, end - now)
            store = Store(f"sqlite:///{files.root}/rollout.db", self._config.lease_s)
            target = _Warmed(servers, self._plan.warm_s, self._stable is None, clock)
            with self._traffic(servers, customers) as traffic:
                sleep = _ticking_sleep(servers, clock)
                replaced = Replacements(store, self._registry, self._report, clock, sleep)
                wiring = Wiring(settings, target, lambda config, rollout: observer, replaced=replaced)
                begun = self._begin(store, clock())
                rollout = wiring.controller(begun).run(begun.id)
                evidence = observer.observe(rollout.windows, clock())
            answers = self._predict(servers) if rollout.phase == "promoted" else []
            record = report_record(rollout, store.history(rollout.id), evidence)
        record["seconds_in_all"] = round(time.monotonic() - began, 3)
        record["stable"] = {"version": first.version, "sha256": first.sha256}
        record["replay"] = {"requests": sum(traffic.counts.values()), "failed": traffic.failed}
        return record, answers

    def _begin(self, store: Store, now: datetime) -> Rollout:
        version = self._candidate.version
        reason = f"churn run packaged version {version}"
        if self._stable is None:
            reason += f"; {self._lacking}: it is deployed beside itself"
        model, who = self._settings.serving.model_name, self._context.who
        return store.start(model, Change(self._candidate, self._stable, who, now, reason), self._config)

    def _predict(self, servers: Supervisor) -> list[dict[str, Any]]:
        """Predictions for the customers of pipelines.live.query_server."""
        model, key = self._settings.serving.model_name, own_key(self._files.api_key)
        return predict(servers.gateway.url, model, customers_online(self._settings, EXAMPLES), key)

    def _traffic(self, servers: Supervisor, customers: Sequence[int | str]) -> Traffic:
        return Traffic(
            servers.gateway.url,
            self._settings.serving.model_name,
            own_key(self._files.api_key),
            customers,
            Pace(self._plan.requests_per_s, self._plan.clients),
        )

    def _report(self, notice: Notice) -> None:
        event = notice.event
        share = "shadow" if event.mirror else f"{event.weight} %"
        self._context.progress(f"canary {share}: {event.action.replace('_', ' ')}: {event.reason}")


class _Warmed(EnvoyTarget):
    """A canary is ready after it has had copies of real requests for `warm_s` seconds. Without this, two
    servers that start within a minute of each other on two cores differ by their age.

    `alone`: nothing was stable before; the candidate itself serves as stable, which is not reported.
    """

    def __init__(
        self, supervisor: Supervisor, warm_s: float, alone: bool, clock: Callable[[], datetime]
    ) -> None:
        super().__init__(supervisor)
        self._warm, self._alone, self._clock = timedelta(seconds=warm_s), alone, clock
        self._since: datetime | None = None
        self._warmed = False

    def observe(self) -> TargetState:
        state = super().observe()
        if state.ready and not self._warmed:
            state = self._warming(state)
        return replace(state, stable=None) if self._alone else state

    def _warming(self, state: TargetState) -> TargetState:
        now = self._clock()
        if self._since is None:
            self._since = now
            self._gateway.set_canary_weight(0, mirror=True)
        self._warmed = now - self._since >= self._warm
        if self._warmed:
            self._gateway.set_canary_weight(0)
        return replace(state, mirror=False, ready=self._warmed, detail="warming up with copies of requests")


def _ticking_sleep(servers: Supervisor, clock: Callable[[], datetime]) -> Callable[[float], None]:
    """A sleep during which the supervisor ticks as in `churn serve`, so that dead servers are replaced."""

    def sleep(seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            servers.tick(clock())
            time.sleep(min(left, SUPERVISOR_TICK_S))

    return sleep


def _on_this_machine(settings: Stages, plan: Rehearsal) -> Stages:
    """The settings with the short plan and free ports: another server may use the configured ports."""
    rules = settings.rollout.rules
    if rules.latency is not None and plan.latency is not None:
        rules = rules.model_copy(update={"latency": plan.latency})
    rollout: RolloutConfig = settings.rollout.model_copy(
        update={
            "target": "envoy",
            "store": None,
            "stages": plan.stages,
            "rules": rules,
            "watch_s": plan.watch_s,
            "tick_s": plan.tick_s,
            "block_s": plan.block_s,
            "notify": Notify(),
        }
    )
    ports = dict.fromkeys(("inference_port", "management_port", "metrics_port"), 0)
    log = {
        "prediction_log": True,
        "prediction_log_kafka": None,
        "prediction_log_window_s": plan.prediction_log_window_s,
    }
    return settings.model_copy(
        update={
            "rollout": rollout,
            "serving": settings.serving.model_copy(update={**ports, **log}),
            "gateway": settings.gateway.model_copy(
                update={"host": "127.0.0.1", "port": 0, "tls": Tls(enabled=False)}
            ),
        }
    )
