"""Envoy in front of TorchServe, as a process that runs during a `with` block."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import httpx

from core.errors import ServingError
from core.workspace import Workspace
from serving.addresses import base_url, hold_port
from serving.config import GatewayConfig, ServingConfig
from serving.environment import SYSTEM, passed_on
from serving.gateway import key_use
from serving.gateway.admin import EnvoyAdmin
from serving.gateway.connections import Connections
from serving.gateway.envoy.api import CANARY_ALONE, MIRROR, SLOTS, WEIGHT
from serving.gateway.envoy.bootstrap import bootstrap
from serving.gateway.envoy.instance import EnvoyInstance
from serving.gateway.envoy.routes import ServedModel
from serving.gateway.keys import Key
from serving.gateway.live_config import LiveConfig
from serving.gateway.program import envoy_program
from serving.gateway.tls import TlsFiles
from serving.process.owned import OwnedProcess
from serving.process.running import ServerProcess
from serving.sizes import SizeBudget
from serving.torchserve.upstream import Upstream

START_TIMEOUT_S = 30.0
APPLIED_WITHIN_S = 10.0
CHECK_INTERVAL_S = 0.05


@dataclass(frozen=True)
class Split:
    """The canary's share of the customers in percent, and whether it gets copies of stable's requests."""

    weight: int
    mirror: bool


class Gateway(ServerProcess):
    """Starts Envoy, which listens during the `with` block and forwards requests to what `set_upstream` sets.

    However the block or this process ends, Envoy ends too. Raises ServingError when it does not start.
    """

    url: str
    """Base URL for clients on this machine."""
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
        """`record`: a file about this server that is removed when Envoy ends. `objective_ms`: Envoy counts
        the requests that took longer.

        Raises ServingError when the two configurations do not fit together.
        """
        self.config, self.model, self.objective_ms = config, serving.model_name, objective_ms
        self._budget = SizeBudget.of(config, serving)
        self._remove = [] if record is None else [record]
        self._logs, self._key_use_log = files.serving / "logs", key_use.log_file(files)
        self._tls = TlsFiles(config, files) if config.uses_tls else None
        served = ServedModel(
            serving.model_name,
            max_instances=serving.max_instances,
            traced=serving.tracing.endpoint is not None,
        )
        self._live = LiveConfig(config, served, self._tls)
        self._split = Split(0, False)
        self._ports: tuple[int, int] | None = None
        self._lock = threading.RLock()
        """Several threads change slots and keys. Envoy gets one change after the other."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Start Envoy, also again after its end: with the same ports, slots, keys and weights."""
        with self._lock:
            self._start()

    def _start(self) -> None:
        program = envoy_program()
        port, metrics_port = self._choose_ports()
        self._process = process = OwnedProcess("churn-gw-", self._remove)
        self._instance = EnvoyInstance(
            port,
            metrics_port,
            process.scratch,
            self._logs / "gateway.log",
            self._key_use_log,
            () if self._tls is None else self._tls.secret_names,
        )
        self.url = base_url(port, self.config.host, "http" if self._tls is None else "https")
        self.metrics = base_url(metrics_port)
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
            self._live.write_secrets(self._instance, datetime.now(UTC))
            self._live.write_routes(self._instance)
            self._live.write_endpoints(self._instance)
            content = bootstrap(self.config, self._instance, self.model, self._budget, self.objective_ms)
            file = process.scratch / "bootstrap.json"
            file.write_text(json.dumps(content), encoding="utf-8")
            output = self._logs / "envoy.log"
            begin = output.stat().st_size if output.exists() else 0
            process.start(
                [
                    *(str(program), "-c", str(file), "--disable-hot-restart"),
                    *("--concurrency", str(self.config.threads), "--log-level", "warn"),
                    # a rollout reads the failures every second; the default, 10 s, is too late
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
        """End Envoy at once. Call `connections.close` and `connections.wait_until_quiet` before."""
        super().stop()

    def ready(self) -> bool:
        """Whether a worker answered Envoy's last health check with a prediction."""
        try:
            return httpx.get(f"{self.metrics}/readyz", timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def serve(self, metadata: Mapping[str, Any], keys: Iterable[Key]) -> None:
        """Set the model's metadata and the API keys that are accepted from now on."""
        with self._lock:
            self._live.served = replace(self._live.served, metadata=metadata, keys=tuple(keys))
            if self.alive:
                self._live.write_routes(self._instance)

    def set_upstream(self, slot: str, upstream: Upstream | None) -> None:
        """Send the slot's requests to `upstream` from now on, or to none. Requests in flight are finished.

        A server that was there before serves too until the new one has passed Envoy's health check, so that
        the slot is never without a server. Returns when Envoy has applied the change. Raises ServingError
        when it does not; the slot is then as before.
        """
        if slot not in SLOTS:
            raise ServingError(f"slot {slot}: there are {', '.join(SLOTS)}")
        with self._lock:
            before = self._live.slots.get(slot, ())
            try:
                self._set_upstream(slot, before, upstream)
            except BaseException:
                self._write_slot(slot, () if upstream is None else before)
                raise

    def _set_upstream(self, slot: str, before: tuple[Upstream, ...], upstream: Upstream | None) -> None:
        if before and upstream is not None and self.alive:
            self._write_slot(slot, (*before, upstream))
            self._wait_until(lambda hosts: hosts[slot].get(upstream.inference_port) == "HEALTHY")
        self._write_slot(slot, () if upstream is None else (upstream,))
        if self.alive:
            if slot == "canary":
                self._live.write_routes(self._instance)
            self._wait_until(self._live.is_applied)

    def _write_slot(self, slot: str, upstreams: tuple[Upstream, ...]) -> None:
        self._live.slots[slot] = upstreams
        self._live.write_endpoints(self._instance)

    def set_canary_weight(self, percent: int, mirror: bool = False) -> None:
        """Send this share of the customers to the canary; `mirror`: copies of stable's requests too.

        Raises ServingError when Envoy does not answer.
        """
        self._split = Split(percent, mirror)
        weights = {f"{WEIGHT}.stable": 100 - percent, f"{WEIGHT}.canary": percent}
        self.admin.set_runtime({**weights, MIRROR: 100 if mirror else 0})

    def split(self) -> Split:
        """The split that Envoy itself reports. Raises ServingError when it does not answer."""
        runtime = self.admin.runtime()
        return Split(int(runtime.get(f"{WEIGHT}.canary") or 0), int(runtime.get(MIRROR) or 0) > 0)

    def hosts(self, slot: str) -> dict[int, str]:
        """Inference port of each server that Envoy reports for the slot -> HEALTHY or FAILING."""
        hosts = self.admin.hosts()
        if slot == "canary":  # the cluster `canary` also contains stable, which answers in its place
            return {port: hosts["canary"].get(port, "FAILING") for port in hosts[CANARY_ALONE]}
        return hosts[slot]

    def stats(self, pattern: str) -> dict[str, Any]:
        """As `EnvoyAdmin.stats`."""
        return self.admin.stats(pattern)

    @property
    def admin(self) -> EnvoyAdmin:
        return EnvoyAdmin(self._instance.admin)

    @property
    def connections(self) -> Connections:
        return Connections(self.admin, self.pid, self._instance.port, lambda: self.alive)

    @property
    def failures(self) -> Path:
        """The log of requests that failed while there was a canary; a customer is named by a checksum."""
        return self._instance.failures

    @property
    def access_log(self) -> Path:
        return self._instance.access_log

    @property
    def certificate(self) -> Path | None:
        """The file with the gateway's certificate; None without TLS."""
        return None if self._tls is None else self._tls.certificate

    def refresh_tls(self, now: datetime) -> bool:
        """Apply certificates that have changed or end soon. Return True when it did. Connections stay open.

        Raises ServingError when the files cannot be used. The present certificates then stay in use.
        """
        if self._tls is None or not self._tls.is_due(now):
            return False
        with self._lock:
            self._live.write_secrets(self._instance, now)
        return True

    def _choose_ports(self) -> tuple[int, int]:
        if self._ports is None:
            with (
                hold_port(self.config.port, "gateway.port", self.config.host) as public,
                hold_port(0, "the gateway's metrics port") as metrics,
            ):
                self._ports = int(public.getsockname()[1]), int(metrics.getsockname()[1])
        return self._ports

    def _wait_until_live(self, output: Path, begin: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if not self.alive:
                lines = output.read_bytes()[begin:].decode(errors="replace").strip().splitlines()
                raise ServingError(
                    f"Envoy ended at its start: {lines[-1] if lines else 'no output'} (log: {output})"
                )
            if self._instance.admin.exists() and self.admin.ready():
                return
            time.sleep(CHECK_INTERVAL_S)
        raise ServingError(f"Envoy: not live within {START_TIMEOUT_S:g} s; see {output}")

    def _wait_until(self, holds: Callable[[dict[str, dict[int, str]]], bool]) -> None:
        """Wait for a state of the clusters (name -> port -> health). Raises ServingError after a time."""
        deadline = time.monotonic() + APPLIED_WITHIN_S
        while time.monotonic() < deadline:
            if holds(self.admin.hosts()):
                return
            time.sleep(CHECK_INTERVAL_S)
        raise ServingError(
            f"the gateway did not apply its new endpoints within {APPLIED_WITHIN_S:g} s;"
            f" see {self._logs / 'envoy.log'}"
        )
