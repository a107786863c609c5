"""One model served without a gap: TorchServe behind the gateway, replaced, restarted and stopped in order.

TorchServe cuts what is on its way when it is told to end, so that it is only told once nothing is: a
successor is ready first, the gateway moves to it, the last answer leaves the old one, then it stops. All
changes of version, renewals of tokens and restarts are that one sequence. Beside it a canary may be on trial
(serving/canary.py), moved by a companion: a loop of its own in this process, which the composition gives.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx

from data.errors import ChurnError, ServingError
from data.workspace import Workspace, write_atomically
from serving.canary import Canary
from serving.config import GatewayConfig
from serving.gateway import Gateway
from serving.keys import Key, Keys
from serving.metadata import model_metadata
from serving.tokens import Tokens
from serving.torchserve import TorchServe
from serving.warmup import warm_up

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
STEADY_S = 60.0
"""A server that ran this long has recovered: its next failure is a first one."""
RENEW_BEFORE = timedelta(days=1)
LOG_BYTES = 50_000_000
READY_TIMEOUT_S = 15.0
COMPANION_STOPS_WITHIN_S, COMPANION_AGAIN_AFTER_S = 20.0, 5.0

State = Literal["ready", "restarting", "draining"]
Companion = Callable[["Supervisor", threading.Event], None]


def wait_before_restart(failures: int) -> float:
    """Seconds to wait after this many failures in a row: doubled each time."""
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** max(0, failures - 1))


class Supervisor:
    """Inside the `with` block the model is served; `tick` (several times a second) keeps it so.

    `server(archive, name)` makes a TorchServe that is not started yet; `newest()` says which archive a
    change of version takes. `trial(archive, name)` makes one that says of itself that it is the canary.

    `companion(supervisor, over)` runs in a thread of its own while the model is served, and returns soon
    after `over` is set. One that ends before is started again. It may call `canary` and `replace`.
    """

    def __init__(
        self,
        config: GatewayConfig,
        gateway: Gateway,
        keys: Keys,
        server: Callable[[Path, str], TorchServe],
        newest: Callable[[], Path],
        files: Workspace,
        trial: Callable[[Path, str], TorchServe] | None = None,
        companion: "Companion | None" = None,
    ) -> None:
        self.gateway = gateway
        make = trial or server
        self.canary = Canary(gateway, lambda archive: make(archive, "torchserve-canary"), self._retire)
        self._companion, self._company, self._company_at = companion, threading.Thread(), 0.0
        self._over = threading.Event()
        self._lock = threading.RLock()
        self._starting: set[TorchServe] = set()
        self._config, self._keys, self._server, self._newest = config, keys, server, newest
        self._record_file = record_file(files)
        self._names = (f"torchserve-{number % 2 + 1}" for number in count())
        self._model: TorchServe | None = None
        self._known_keys: tuple[Key, ...] = ()
        self._keys_seen = -1
        self._failures, self._retry_at, self._steady_since = 0, 0.0, 0.0
        self._restarts = self._changes = 0
        self._reason = ""

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self._known_keys, self._keys_seen = self._keys.all(), self._keys.changed()
            archive = self._newest()
            undo.callback(self.gateway.stop)
            # first: a taken port is said at once, and not after the model has loaded; others get a 503
            self.gateway.serve(model_metadata(archive, self.gateway.model), self._known_keys)
            self.gateway.start()
            self._model = self._started(archive)
            undo.callback(self._model.stop)
            self._move_to(self._model)
            deadline = time.monotonic() + READY_TIMEOUT_S
            while not self.gateway.ready():
                if time.monotonic() > deadline:
                    raise ServingError("the worker is ready, but gives no prediction; see the worker's log")
                time.sleep(0.05)
            self._tell("ready")
            undo.pop_all()
        self._over.clear()
        self._keep_company()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def model(self) -> TorchServe:
        assert self._model is not None
        return self._model

    def tick(self, now: datetime) -> None:
        """Look after both servers, the keys, the tokens and the access log."""
        with self._lock:
            if not self.gateway.alive:
                self._restart_gateway()
            if not self.model.alive:
                self._restart_model()
            elif self._failures and time.monotonic() - self._steady_since > STEADY_S:
                self._failures = 0
            if self._keys.changed() != self._keys_seen:
                self._take_keys()
        self._keep_company()
        if self.model.alive and now > self.model.tokens.expire - RENEW_BEFORE:
            self.replace(self.model.archive)
        self._roll_access_log()

    def change(self) -> None:
        """Serve the newest archive from now on. Where it cannot be served, the old one goes on.

        Raises ServingError, or what `newest` raises, with the reason; it is in the record too.
        """
        try:
            self.replace(self._newest())
            self._reason = ""
        except ChurnError as error:
            self._reason = str(error)
            raise
        finally:
            self._changes += 1
            self._tell("ready" if self.model.alive else "restarting")

    def replace(self, archive: Path) -> None:
        """A new TorchServe for the present one, no request cut. When this raises, the present one stays.

        May be called from any thread; until the new one is ready, the present one is looked after.
        """
        fresh = self._started(archive)
        warm_up(fresh)
        with self._lock:
            if self._over.is_set():
                fresh.stop()
                raise ServingError("not replaced: the server is being stopped")
            old = self.model
            self._give_way(fresh)
        self._retire(old)

    def stop(self) -> None:
        """Take nothing new, answer all that is on its way, end both servers."""
        self._over.set()
        for server in tuple(self._starting):
            server.stop()  # whoever waits for it learns that it ended
        if self._company.is_alive():
            self._company.join(COMPANION_STOPS_WITHIN_S)
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        if self._model is None:
            return
        model, self._model = self._model, None
        try:
            if self.gateway.alive:
                self._tell("draining", model)
                self.gateway.close()
                self.gateway.wait_until_quiet(self._config.drain_timeout_s)
        finally:
            self.gateway.stop()
            self.canary.stop()
            model.stop()
            self._record_file.unlink(missing_ok=True)

    def _keep_company(self) -> None:
        wanted = self._companion is not None and not self._over.is_set()
        if wanted and not self._company.is_alive() and time.monotonic() >= self._company_at:
            self._company_at = time.monotonic() + COMPANION_AGAIN_AFTER_S
            self._company = threading.Thread(
                target=self._companion, args=(self, self._over), name="companion", daemon=True
            )
            self._company.start()

    def _take_over(self, archive: Path) -> None:
        self._give_way(self._started(archive))

    def _give_way(self, fresh: TorchServe) -> None:
        try:
            self._move_to(fresh)
        except BaseException:
            fresh.stop()
            raise
        self._model, self._steady_since, self._reason = fresh, time.monotonic(), ""
        self._tell("ready")

    def _started(self, archive: Path) -> TorchServe:
        with self._lock:
            server = self._server(archive, next(self._names))
        self._starting.add(server)
        try:
            return server.__enter__()
        finally:
            self._starting.discard(server)

    def _move_to(self, model: TorchServe) -> None:
        self.gateway.serve(model_metadata(model.archive, model.model_name), self._known_keys)
        self.gateway.point("stable", model.upstream)

    def _retire(self, old: TorchServe) -> None:
        if old.alive:
            deadline = time.monotonic() + self._config.drain_timeout_s
            self.gateway.wait_until_unused(old.upstream, self._config.drain_timeout_s)
            while waiting_requests(old) and time.monotonic() < deadline:
                time.sleep(0.05)
        old.stop()

    def _restart_gateway(self) -> None:
        """At once when it ran well so far: until then nobody gets an answer."""
        if not self._due("the gateway ended"):
            return
        self.gateway.stop()  # the record goes with it
        self._tell("restarting")
        try:
            self.gateway.start()
        except ServingError as error:
            self._failed(str(error))
        else:
            self._reason = ""
            self._tell("ready" if self.model.alive else "restarting")

    def _restart_model(self) -> None:
        if not self._due("TorchServe ended"):
            return
        archive = self.model.archive
        self.model.stop()
        try:
            if self.gateway.alive:
                self.gateway.point("stable", None)  # a 503 at once instead of a vain attempt
            self._take_over(archive)
        except ServingError as error:
            self._failed(str(error))

    def _due(self, what: str) -> bool:
        """Whether the next attempt may be made. The first look at a death counts it and sets the wait."""
        now = time.monotonic()
        if self._retry_at == 0.0:
            self._restarts += 1
            self._failures += 1
            self._retry_at = now + wait_before_restart(self._failures)
            self._reason = what
            self._tell("restarting")
        if now < self._retry_at:
            return False
        self._retry_at = 0.0
        return True

    def _failed(self, reason: str) -> None:
        """The attempt did not work: another wait begins, twice as long."""
        self._failures += 1
        self._retry_at = time.monotonic() + wait_before_restart(self._failures)
        self._reason = reason
        self._tell("restarting")

    def _take_keys(self) -> None:
        self._keys_seen = self._keys.changed()
        try:
            self._known_keys = self._keys.all()
        except ServingError as error:
            self._reason = str(error)  # the keys that were good stay so
        else:
            self.gateway.serve(model_metadata(self.model.archive, self.model.model_name), self._known_keys)
        self._tell("ready" if self.model.alive else "restarting")

    def _roll_access_log(self) -> None:
        log = self.gateway.access_log
        if self.gateway.alive and log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(log.with_suffix(".1.log"))
            self.gateway.reopen_log()

    def _tell(self, state: State, model: TorchServe | None = None) -> None:
        model = model or self.model
        record: dict[str, Any] = {
            **(model.record() if model.alive else {"model": model.model_name, "archive": str(model.archive)}),
            "torchserve_pid": model.pid,
            "gateway": self.gateway.url,
            "gateway_metrics": self.gateway.metrics,
            "gateway_pid": self.gateway.pid,
            "gateway_admin": str(self.gateway.admin),
            "inference": self.gateway.url,
            "pid": os.getpid(),
            "state": state,
            "reason": self._reason,
            "restarts": self._restarts,
            "changes": self._changes,
        }
        write_atomically(self._record_file, json.dumps(record, indent=2) + "\n")


def record_file(files: Workspace) -> Path:
    """Where a server says what it is: see `serving.client.running`."""
    return files.serving / "server.json"


def waiting_requests(server: TorchServe) -> int:
    """How many requests wait for a worker of this TorchServe; 0 when it no longer says."""
    try:
        answer = httpx.get(
            f"{server.management}/models/{server.model_name}",
            headers=Tokens.headers(server.tokens.management),
            timeout=5.0,
            trust_env=False,
        )
        return int(answer.json()[0]["jobQueueStatus"]["pendingRequests"])
    except (httpx.TransportError, ValueError, KeyError, IndexError):
        return 0
