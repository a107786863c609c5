"""A whole rollout on this machine, with real processes: Envoy, two TorchServes, controller, and clients."""

import hashlib
import http.client
import itertools
import json
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rollout.config import RolloutConfig
from rollout.controller import Controller
from rollout.observers.live import LiveObserver
from rollout.observers.log_files import LogFiles
from rollout.observers.observer import Observer
from rollout.rules import rules_of
from rollout.session import Clock, Connections
from rollout.state import Change, Event, Rollout
from rollout.store import Store
from rollout.targets.envoy import EnvoyTarget
from rollout.targets.target import Candidate
from serving.config import GatewayConfig, ServingConfig
from serving.supervisor import Companion, Supervisor
from support.served_bundle import FRESH, NOW, ServedBundle, make_archive
from support.servers.stack import supervisor_of, ticking

HORIZON = timedelta(days=90)
VERSION = "ba9876543210"


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Clients:
    """Send requests for one customer after the other, and count the result of every one."""

    url: str
    threads: int = 2
    pause_s: float = 0.02
    """Both variants and the clients share the cores: more load would measure the machine."""
    sticky: bool = True
    """False: each request is assigned to a variant independently, as by KServe's gateways: with a random
    `x-churn-user`."""
    status: Counter[int] = field(default_factory=Counter)
    """0: no complete answer."""
    versions: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def sending(self) -> Iterator["Clients"]:
        workers = [threading.Thread(target=self._send, args=(n,)) for n in range(self.threads)]
        for worker in workers:
            worker.start()
        try:
            yield self
        finally:
            self._over.set()
            for worker in workers:
                worker.join()

    @property
    def sent(self) -> int:
        return sum(self.status.values())

    @property
    def failed(self) -> int:
        return self.sent - self.status[200]

    def _send(self, first: int) -> None:
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=60)
        for number in itertools.count(first, self.threads):
            if self._over.is_set():
                break
            user = FRESH[number * 7919 % len(FRESH)]
            began = time.monotonic()
            status, body = self._one(connection, user)
            took = time.monotonic() - began
            with self._lock:
                self.status[status] += 1
                self.slowest_s = max(self.slowest_s, took)
                if status == 200:
                    self.versions[json.loads(body)["model_version"]] += 1
                else:
                    self.failures.append(f"{utc_now():%H:%M:%S.%f} {status} {body[:120]!r}")
            time.sleep(self.pause_s)
        connection.close()

    def _one(self, connection: http.client.HTTPConnection, user: int) -> tuple[int, str]:
        try:
            connection.request(
                "POST",
                "/predictions/churn",
                json.dumps({"user_id": user}),
                {"content-type": "application/json"}
                | ({} if self.sticky else {"x-churn-user": f"{random.getrandbits(64)}"}),
            )
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return 0, repr(error)


@dataclass
class Rig:
    supervisor: Supervisor
    target: Any
    """EnvoyTarget, or the target of a cluster."""
    files: Any
    log: Path
    offset: timedelta
    stable: Candidate
    sticky: bool = True

    @property
    def url(self) -> str:
        return self.supervisor.gateway.url

    def observer(self, config: RolloutConfig, labels: Path | None = None) -> Observer:
        return LiveObserver(self.supervisor.gateway, LogFiles(self.log), config, self.offset, labels, HORIZON)


@contextmanager
def running_rig(
    bundle: ServedBundle,
    folder: Path,
    objective_ms: float = 800.0,
    canary: Mapping[str, str] | None = None,
    gateway: GatewayConfig | None = None,
    companion: Companion | None = None,
) -> Iterator[Rig]:
    """All processes of `churn serve`, supervised in the same way. `canary`: environment variables of the
    canary."""
    log, offset = folder / "prediction-log", NOW - utc_now()
    environment = {
        "CHURN_CLOCK_OFFSET_S": str(offset.total_seconds()),
        "CHURN_PREDICTION_LOG": str(log),
        "CHURN_PREDICTION_LOG_WINDOW_S": "2",
        "CHURN_VARIANT": "stable",
    }
    made = supervisor_of(
        bundle,
        folder,
        gateway or GatewayConfig(keys=False, drain_timeout_s=20),
        ServingConfig(prediction_log_window_s=2),
        environment,
        objective_ms=objective_ms,
        canary={"CHURN_VARIANT": "canary", **(canary or {})},
        companion=companion,
    )
    stable = candidate_of(bundle.archive)
    with made.supervisor as supervisor, ticking(supervisor):
        yield Rig(supervisor, EnvoyTarget(supervisor), made.files, log, offset, stable)


def candidate_of(archive: Path, version: str = "0123456789ab") -> Candidate:
    return Candidate(str(archive), hashlib.sha256(archive.read_bytes()).hexdigest(), version)


def altered(
    bundle: ServedBundle, folder: Path, changes: Mapping[str, Sequence[tuple[str, str]]] | None = None
) -> Candidate:
    """A real archive of the next version, with replacements (old, new) in its files."""
    model_dir = shutil.copytree(bundle.model_dir, folder / "model")
    described = model_dir / "bundle.json"
    described.write_text(json.dumps(json.loads(described.read_text()) | {"model_version": VERSION}))
    for name, replacements in (changes or {}).items():
        file = model_dir / name
        text = file.read_text()
        for what, by in replacements:
            assert text.count(what) == 1, f"{name}: {what!r} is there {text.count(what)} times"
            text = text.replace(what, by)
        file.write_text(text)
    return candidate_of(make_archive(model_dir, folder / "model-store" / "tiny.mar"), VERSION)


class Registered:
    """The versions that became champion, in order, without repetitions in a row."""

    def __init__(self) -> None:
        self.champions: list[str] = []

    def follow(self, change: Change, numbers: Mapping[str, float]) -> str:
        if self.champions[-1:] != [change.to.version]:
            self.champions.append(change.to.version)
        return "the champion"


@dataclass
class Drill:
    """One rollout after its end, and the answers that clients got."""

    rollout: Rollout
    history: list[Event]
    clients: Clients
    champions: list[str]
    seconds: float

    @property
    def weights(self) -> list[int]:
        return [window.weight for window in self.rollout.windows]


def drilled(
    rig: Rig,
    folder: Path,
    config: RolloutConfig,
    candidate: Candidate,
    meanwhile: Callable[[Rollout], None] = lambda rollout: None,
    labels: Path | None = None,
    clients: Clients | None = None,
) -> Drill:
    """Roll `candidate` out while clients send requests, until it has ended. `meanwhile` is called at each
    tick."""
    store, registry = Store(f"sqlite:///{folder}/rollout.db", config.lease_s), Registered()
    connections = Connections(store, rig.target, rig.observer(config, labels), registry)
    controller = Controller(config, rules_of(config), connections, Clock(utc_now, time.sleep))
    clients = clients or Clients(rig.url, sticky=rig.sticky)
    began = time.monotonic()
    with clients.sending():
        rollout = store.start("churn", Change(candidate, rig.stable, "drill", utc_now(), "a drill"), config)
        while not rollout.over:
            rollout = controller.tick(rollout.id)
            meanwhile(rollout)
            time.sleep(config.tick_s)
            assert time.monotonic() - began < 400, rollout
        time.sleep(1)  # some more requests after its end
    return Drill(rollout, store.history(rollout.id), clients, registry.champions, time.monotonic() - began)


def plan(**changes: Any) -> RolloutConfig:
    """A plan of some seconds a stage, with `changes`."""
    default: dict[str, Any] = {
        "stages": [
            {"weight": 0, "mirror": True, "min_s": 3, "max_s": 120, "min_requests": 300},
            {"weight": 5, "min_s": 3, "max_s": 120, "min_requests": 10},
            {"weight": 25, "min_s": 3, "max_s": 120, "min_requests": 40},
            {"weight": 50, "min_s": 3, "max_s": 120, "min_requests": 80},
            {"weight": 100, "min_s": 3, "max_s": 120, "min_requests": 100},
        ],
        # what is slow on the machine that runs the tests, not for a customer
        "rules": {"latency": {"objective_ms": 800, "max_p99_ratio": 3.0}},
        "tick_s": 0.5,
        "block_s": 0.5,
        "watch_s": 3,
        "ready_timeout_s": 180,
    }
    return RolloutConfig.model_validate(default | changes)
