"""One model served without a gap: TorchServe behind the gateway, replaced, restarted and stopped in order.

TorchServe cuts what is on its way when it is told to end, so that it is only told once nothing is: a
successor is ready first, the gateway moves to it, the last answer leaves the old one, then it stops. All
changes of version, renewals of tokens and restarts are that one sequence. Beside it a canary may be on trial
(serving/canary.py), moved by a companion: a loop of its own in this process, which the composition gives.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime, timedelta
from io import BytesIO
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx

from core.errors import ChurnError, ServingError
from core.workspace import Workspace, write_atomically
from serving.archive import Archive
from serving.canary import Canary
from serving.config import GatewayConfig
from serving.gateway.key_use import KeyUse
from serving.gateway.keys import Key, Keys
from serving.gateway.metadata import model_metadata
from serving.gateway.process import Gateway
from serving.restarts import ProcessState, RestartPolicy, due, ended, not_started, started
from serving.torchserve.server import TorchServe
from serving.torchserve.tokens import Tokens
from serving.torchserve.warmup import warm_up

RENEW_BEFORE = timedelta(days=1)
RENEWALS = RestartPolicy(first_wait_s=60.0, longest_wait_s=3600.0)
"""How soon a renewal that failed is tried again: the tokens of the present server are good for a day more."""
LOG_BYTES = 50_000_000
READY_TIMEOUT_S = 15.0
COMPANION_STOPS_WITHIN_S, COMPANION_AGAIN_AFTER_S = 20.0, 5.0

State = Literal["ready", "restarting", "draining"]
Companion = Callable[["Supervisor", threading.Event], None]


log = logging.getLogger("churn.serving")


class Supervisor:
    """Inside the `with` block the model is served; `tick` (several times a second) keeps it so.

    `server(archive, name)` makes a TorchServe that is not started yet; `newest()` says which archive a
    change of version takes. `trial(archive, name)` makes one that says of itself that it is the canary.

    Each duty of a tick fails on its own: the reason is in the record and the log, and the duty is done again
    at a later tick. What takes long (a restart of TorchServe, a renewal) runs in the background, so that the
    gateway and the keys are looked after meanwhile.

    `companion(supervisor, over)` runs in a thread of its own while the model is served, and returns soon
    after `over` is set. One that ends before is started again. It may call `canary` and `replace`.
    """

    def __init__(
        self,
        config: GatewayConfig,
        gateway: Gateway,
        keys: Keys,
        server: Callable[[Archive, str], TorchServe],
        newest: Callable[[], Archive],
        files: Workspace,
        trial: Callable[[Archive, str], TorchServe] | None = None,
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
        self._key_use = KeyUse(files)
        self._names = (f"torchserve-{number % 3 + 1}" for number in count())
        self._model: TorchServe | None = None
        self._metadata: Mapping[str, Any] = {}
        self._known_keys: tuple[Key, ...] = ()
        self._keys_seen = -1
        self._policy = RestartPolicy()
        self._gateway_state, self._model_state, self._renewal_state = (ProcessState() for _ in range(3))
        self._background = threading.Thread()
        self._changes = 0
        self._reasons: dict[str, str] = {}
        """What each duty failed at when it was done last, and why the last change was refused."""

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self._known_keys, self._keys_seen = self._keys.all(), self._keys.changed()
            first = self._make(self._newest())
            self._metadata = _metadata(first)
            undo.callback(self.gateway.stop)
            # first: a taken port is reported at once, and not after the model has loaded; others get a 503
            self.gateway.serve(self._metadata, self._known_keys)
            self.gateway.start()
            self._model = self._start(first)
            undo.callback(self._model.stop)
            self._move_to(self._model)
            deadline = time.monotonic() + READY_TIMEOUT_S
            while not self.gateway.ready():
                if time.monotonic() > deadline:
                    raise ServingError("the worker is ready, but gives no prediction; see the worker's log")
                time.sleep(0.05)
            now = time.monotonic()
            self._gateway_state = self._model_state = ProcessState(started_at=now)
            self._write_record("ready")
            undo.pop_all()
        self._over.clear()
        self._ensure_companion()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def model(self) -> TorchServe:
        assert self._model is not None
        return self._model

    @property
    def _reason(self) -> str:
        return "; ".join(reason for reason in self._reasons.values() if reason)

    def tick(self, now: datetime) -> None:
        """Look after both servers, the keys, the tokens and the logs; no failure of these is raised."""
        if self._over.is_set():
            return
        duties = {
            "gateway": self._look_after_gateway,
            "model": self._look_after_model,
            "keys": self._look_after_keys,
            "renewal": lambda: self._renew_before_the_tokens_end(now),
            "tls": lambda: self._look_after_certificates(now),
            "logs": self._roll_logs,
        }
        for name, duty in duties.items():
            self._do(name, duty)
        self._ensure_companion()

    def change(self) -> None:
        """Serve the newest archive from now on. Where it cannot be served, the old one goes on.

        Raises ServingError, or what `newest` raises, with the reason; it is in the record too.
        """
        try:
            self.replace(self._newest())
            self._reasons.pop("change", None)
        except ChurnError as error:
            self._reasons["change"] = str(error)
            raise
        finally:
            self._changes += 1
            self._write_record()

    def replace(self, archive: Archive) -> None:
        """A new TorchServe for the present one, no request cut. When this raises, the present one stays.

        May be called from any thread; until the new one is ready, the present one is looked after.
        """
        fresh = self._start(self._make(archive))
        warm_up(fresh)
        with self._lock:
            if self._over.is_set():
                fresh.stop()
                raise ServingError("not replaced: the server is being stopped")
            old = self.model
            self._switch_to(fresh)
        self._retire(old)

    def stop(self) -> None:
        """Take nothing new, answer all that is on its way, end both servers."""
        self._over.set()
        for server in tuple(self._starting):
            server.stop()  # whoever waits for it learns that it ended
        for thread, within_s in (
            (self._company, COMPANION_STOPS_WITHIN_S),
            (self._background, self._config.drain_timeout_s),
        ):
            if thread.is_alive():
                thread.join(within_s)
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        if self._model is None:
            return
        model, self._model = self._model, None
        try:
            if self.gateway.alive:
                self._write_record("draining", model)
                self.gateway.connections.close()
                self.gateway.connections.wait_until_quiet(self._config.drain_timeout_s)
        finally:
            self.gateway.stop()
            self.canary.stop()
            model.stop()
            self._record_file.unlink(missing_ok=True)

    def _do(self, name: str, duty: Callable[[], None]) -> None:
        """One duty. Its failure is noted, and no reason to leave out the others or to end the service."""
        try:
            duty()
        except (ChurnError, OSError) as error:
            if self._reasons.get(name) != str(error):
                log.warning("%s: %s", name, error)
                self._reasons[name] = str(error)
                self._write_record()

    def _done(self, *names: str) -> None:
        """These duties succeeded: what they failed at before is no longer so."""
        for name in names:
            self._reasons.pop(name, None)
        self._write_record()

    def _ensure_companion(self) -> None:
        wanted = self._companion is not None and not self._over.is_set()
        if wanted and not self._company.is_alive() and time.monotonic() >= self._company_at:
            self._company_at = time.monotonic() + COMPANION_AGAIN_AFTER_S
            self._company = threading.Thread(
                target=self._companion, args=(self, self._over), name="companion", daemon=True
            )
            self._company.start()

    def _in_background(self, name: str, work: Callable[[], None]) -> None:
        self._background = threading.Thread(target=self._do, args=(name, work), name=name, daemon=True)
        self._background.start()

    def _make(self, archive: Archive) -> TorchServe:
        """A server that is not started yet, its archive read and checked."""
        with self._lock:
            server = self._server(archive, next(self._names))
        server.load()
        return server

    def _start(self, server: TorchServe) -> TorchServe:
        self._starting.add(server)
        try:
            return server.__enter__()
        finally:
            self._starting.discard(server)

    def _switch_to(self, fresh: TorchServe) -> None:
        try:
            self._move_to(fresh)
        except BaseException:
            fresh.stop()
            raise
        self._model = fresh
        self._model_state = started(self._model_state, time.monotonic())
        self._done("model", "renewal")

    def _move_to(self, model: TorchServe) -> None:
        self._metadata = _metadata(model)
        self.gateway.serve(self._metadata, self._known_keys)
        self.gateway.set_upstream("stable", model.upstream)

    def _retire(self, old: TorchServe) -> None:
        if old.alive:
            deadline = time.monotonic() + self._config.drain_timeout_s
            self.gateway.connections.wait_until_unused(old.upstream, self._config.drain_timeout_s)
            while waiting_requests(old) and time.monotonic() < deadline:
                time.sleep(0.05)
        old.stop()

    def _look_after_gateway(self) -> None:
        with self._lock:
            if self.gateway.alive:
                return
            now, state = time.monotonic(), self._gateway_state
            if not state.down:
                state = ended(state, now, self._policy)
                self._reasons["gateway"] = "the gateway ended"
                self._gateway_state = state
                self._write_record()
            if not due(state, now):
                return
            self.gateway.stop()  # the record goes with it
            self._write_record()
            try:
                self.gateway.start()
            except (ChurnError, OSError):
                self._gateway_state = not_started(state, time.monotonic(), self._policy)
                raise
            self._gateway_state = started(state, time.monotonic())
            self._done("gateway")

    def _look_after_model(self) -> None:
        with self._lock:
            if self.model.alive:
                return
            now = time.monotonic()
            if not self._model_state.down:
                self._model_state = ended(self._model_state, now, self._policy)
                self._reasons["model"] = "TorchServe ended"
                self._write_record()
                if self.gateway.alive:
                    self.gateway.set_upstream("stable", None)  # a 503 at once instead of a vain attempt
            if due(self._model_state, now) and not self._background.is_alive():
                self._in_background("model", self._restart_model)

    def _restart_model(self) -> None:
        """With the bytes that were verified when they were loaded first: the file may have changed since."""
        dead = self.model
        dead.stop()
        try:
            fresh = self._start(self._make(dead.load()))
            with self._lock:
                if self._over.is_set() or self.model is not dead:  # stopped, or replaced meanwhile
                    fresh.stop()
                    return
                self._switch_to(fresh)
        except (ChurnError, OSError):
            self._model_state = not_started(self._model_state, time.monotonic(), self._policy)
            raise

    def _look_after_keys(self) -> None:
        with self._lock:
            changed = self._keys.changed()
            if changed == self._keys_seen:
                return
            try:
                known = self._keys.all()
            except ServingError:
                self._keys_seen = changed  # the keys that were good stay so until the file changes again
                raise
            self.gateway.serve(self._metadata, known)
            self._known_keys, self._keys_seen = known, changed
            self._done("keys")

    def _renew_before_the_tokens_end(self, now: datetime) -> None:
        if not self.model.alive or now <= self.model.tokens.expire - RENEW_BEFORE:
            return
        state = self._renewal_state
        if self._background.is_alive() or (state.down and not due(state, time.monotonic())):
            return
        self._in_background("renewal", self._renew)

    def _renew(self) -> None:
        try:
            self.replace(self.model.load())
        except (ChurnError, OSError):
            self._renewal_state = not_started(self._renewal_state, time.monotonic(), RENEWALS)
            raise
        self._renewal_state = ProcessState()

    def _look_after_certificates(self, now: datetime) -> None:
        if self.gateway.alive and self.gateway.refresh_tls(now):
            self._done("tls")

    def _roll_logs(self) -> None:
        if not self.gateway.alive:
            return
        written = self.gateway.access_log
        moved = False
        if written.exists() and written.stat().st_size > LOG_BYTES:
            written.replace(written.with_suffix(".1.log"))
            moved = True
        if self._key_use.full():
            self._key_use.fold()
            moved = True
        if moved:
            self.gateway.admin.reopen_logs()
            self._done("logs")

    def _tls_record(self) -> dict[str, str]:
        """For this workspace's own client: serving.tls.own_client."""
        tls = self._config.tls
        found = {
            "tls_certificate": self.gateway.certificate,
            "tls_client_certificate": tls.client_certificate,
            "tls_client_key": tls.client_key,
        }
        return {name: str(file.absolute()) for name, file in found.items() if file is not None}

    def _write_record(self, state: State | None = None, model: TorchServe | None = None) -> None:
        model = model or self.model
        running = self.gateway.alive and model.alive
        record: dict[str, Any] = {
            **(model.record() if model.alive else {"model": model.model_name, "archive": str(model.archive)}),
            "torchserve_pid": model.pid,
            "gateway": self.gateway.url,
            "gateway_metrics": self.gateway.metrics,
            "gateway_pid": self.gateway.pid,
            "gateway_admin": str(self.gateway.admin.socket),
            "inference": self.gateway.url,
            **self._tls_record(),
            "pid": os.getpid(),
            "state": state or ("ready" if running else "restarting"),
            "reason": self._reason,
            "restarts": self._gateway_state.restarts + self._model_state.restarts,
            "changes": self._changes,
            "change_refused": self._reasons.get("change", ""),
        }
        try:
            write_atomically(self._record_file, json.dumps(record, indent=2) + "\n")
        except OSError as error:
            log.warning("%s: %s; requests are answered all the same", self._record_file, error.strerror)


def _metadata(server: TorchServe) -> Mapping[str, Any]:
    return model_metadata(BytesIO(server.load().content), server.model_name)


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
