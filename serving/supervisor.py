"""One model, served without a gap: TorchServe behind the gateway, replaced, restarted and stopped in order.

TorchServe cuts requests in flight when it is stopped. So a successor is ready first, the gateway changes to
it, the last answer leaves the old process, and then the old process is stopped. A change of version and a
renewal of tokens are this one sequence. A second TorchServe may be the canary (serving/canary.py).
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO
from itertools import count
from typing import Any, Literal, Self

from core.errors import ChurnError, ServingError
from core.workspace import Workspace, write_atomically
from serving.archive import Archive
from serving.canary import Canary
from serving.companion import CompanionThread
from serving.gateway.keys import Key, Keys
from serving.gateway.log_rotation import LogRotation
from serving.gateway.metadata import model_metadata
from serving.gateway.process import Gateway
from serving.process.running import Stoppable
from serving.record import record_file, server_record
from serving.restarts import ProcessState, RestartPolicy, due, ended, not_started, started
from serving.torchserve.server import TorchServe
from serving.torchserve.warmup import warm_up

RENEW_BEFORE = timedelta(days=1)
RENEWALS = RestartPolicy(first_wait_s=60.0, longest_wait_s=3600.0)
"""When a failed renewal is tried again. The present server's tokens are valid for a day more."""
READY_TIMEOUT_S = 15.0

State = Literal["ready", "restarting", "draining"]
Companion = Callable[["Supervisor", threading.Event], None]

log = logging.getLogger("churn.serving")


@dataclass(frozen=True)
class Servers:
    """How a supervisor gets its TorchServe processes. None of these functions starts one."""

    newest: Callable[[], Archive]
    """The archive that the next change of version serves."""
    stable: Callable[[Archive, str], TorchServe]
    """A server of this archive. The text is a part of the names of its record and logs."""
    canary: Callable[[Archive, str], TorchServe] | None = None
    """The same for the canary; None: as `stable`."""


class Supervisor(Stoppable):
    """Serves the model during the `with` block, as long as `tick` is called several times a second.

    Each duty of a tick can fail without the others: the reason is in the record and the log, and a later tick
    does the duty again. What takes long (a restart of TorchServe, a renewal) runs in the background, so that
    the gateway and the keys do not wait for it.

    `companion(supervisor, stop)` runs in a thread of its own while the model is served. It returns soon after
    `stop` is set; when it ends earlier, it is started again. It may call `canary` and `replace`.
    """

    def __init__(
        self,
        gateway: Gateway,
        servers: Servers,
        keys: Keys,
        files: Workspace,
        companion: Companion | None = None,
    ) -> None:
        self.gateway, self.servers = gateway, servers
        self.canary = Canary(gateway, self._make_canary, self._retire)
        self._drain_timeout_s = gateway.config.drain_timeout_s
        self._over = threading.Event()
        run = None if companion is None else lambda stop: companion(self, stop)
        self._companion = CompanionThread(run, self._over)
        self._lock = threading.RLock()
        self._starting: set[TorchServe] = set()
        self._record_file = record_file(files)
        self._logs = LogRotation(gateway, files)
        self._names = (f"torchserve-{number % 3 + 1}" for number in count())
        self._model: TorchServe | None = None
        self._metadata: Mapping[str, Any] = {}
        self._keys = keys
        self._accepted_keys: tuple[Key, ...] = ()
        self._keys_seen = -1
        self._policy = RestartPolicy()
        self._gateway_state, self._model_state, self._renewal_state = (ProcessState() for _ in range(3))
        self._background = threading.Thread()
        self._changes = 0
        self._reasons: dict[str, str] = {}
        """Why each duty failed when it was done last, and why the last change was refused."""

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self._accepted_keys, self._keys_seen = self._keys.all(), self._keys.changed()
            first = self._make(self.servers.newest())
            self._metadata = _metadata(first)
            undo.callback(self.gateway.stop)
            # first, so that a port in use is reported before the model loads; clients get a 503 meanwhile
            self.gateway.serve(self._metadata, self._accepted_keys)
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
        self._companion.ensure()
        return self

    @property
    def model(self) -> TorchServe:
        """The process that is stable."""
        assert self._model is not None
        return self._model

    def tick(self, now: datetime) -> None:
        """Do all duties: servers, keys, tokens, certificates and logs. Raises none of their failures."""
        if self._over.is_set():
            return
        duties = {
            "gateway": self._restart_gateway_when_ended,
            "model": self._restart_model_when_ended,
            "keys": self._apply_keys,
            "renewal": lambda: self._renew_before_the_tokens_end(now),
            "tls": lambda: self._refresh_certificates(now),
            "logs": self._rotate_logs,
        }
        for name, duty in duties.items():
            self._do(name, duty)
        self._companion.ensure()

    def change(self) -> None:
        """Serve the newest archive from now on. When it cannot be served, the old one stays.

        Raises ServingError, or what `servers.newest` raises; the reason is in the record too.
        """
        try:
            self.replace(self.servers.newest())
            self._reasons.pop("change", None)
        except ChurnError as error:
            self._reasons["change"] = str(error)
            raise
        finally:
            self._changes += 1
            self._write_record()

    def replace(self, archive: Archive) -> None:
        """Replace the present TorchServe by a new one, without cutting a request.

        May be called from any thread. Until the new one is ready, the present one is restarted when it ends.
        When this raises ServingError, the present one stays.
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
        """Refuse new connections, answer all requests in flight, and end both servers."""
        self._over.set()
        for server in tuple(self._starting):
            server.stop()  # the thread that starts it gets the error
        self._companion.join()
        if self._background.is_alive():
            self._background.join(self._drain_timeout_s)
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
                self.gateway.connections.wait_until_quiet(self._drain_timeout_s)
        finally:
            self.gateway.stop()
            self.canary.stop()
            model.stop()
            self._record_file.unlink(missing_ok=True)

    # one TorchServe after another

    def _make(self, archive: Archive) -> TorchServe:
        """A server that is not started yet, its archive read and checked."""
        with self._lock:
            server = self.servers.stable(archive, next(self._names))
        server.load()
        return server

    def _make_canary(self, archive: Archive) -> TorchServe:
        return (self.servers.canary or self.servers.stable)(archive, "torchserve-canary")

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
        self._succeeded("model", "renewal")

    def _move_to(self, model: TorchServe) -> None:
        self._metadata = _metadata(model)
        self.gateway.serve(self._metadata, self._accepted_keys)
        self.gateway.set_upstream("stable", model.upstream)

    def _retire(self, old: TorchServe) -> None:
        """Stop a server that no slot names any more, after its last answer."""
        if old.alive:
            deadline = time.monotonic() + self._drain_timeout_s
            self.gateway.connections.wait_until_unused(old.upstream, self._drain_timeout_s)
            while old.waiting_requests() and time.monotonic() < deadline:
                time.sleep(0.05)
        old.stop()

    # the duties of a tick

    def _do(self, name: str, duty: Callable[[], None]) -> None:
        """Do one duty. Its failure is recorded; it neither prevents the other duties nor ends the service."""
        try:
            duty()
        except (ChurnError, OSError) as error:
            if self._reasons.get(name) != str(error):
                log.warning("%s: %s", name, error)
                self._reasons[name] = str(error)
                self._write_record()

    def _succeeded(self, *names: str) -> None:
        """Remove the reasons for which these duties failed before."""
        for name in names:
            self._reasons.pop(name, None)
        self._write_record()

    def _in_background(self, name: str, work: Callable[[], None]) -> None:
        self._background = threading.Thread(target=self._do, args=(name, work), name=name, daemon=True)
        self._background.start()

    def _restart_gateway_when_ended(self) -> None:
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
            self.gateway.stop()  # this removes the record too
            self._write_record()
            try:
                self.gateway.start()
            except (ChurnError, OSError):
                self._gateway_state = not_started(state, time.monotonic(), self._policy)
                raise
            self._gateway_state = started(state, time.monotonic())
            self._succeeded("gateway")

    def _restart_model_when_ended(self) -> None:
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

    def _apply_keys(self) -> None:
        with self._lock:
            changed = self._keys.changed()
            if changed == self._keys_seen:
                return
            try:
                keys = self._keys.all()
            except ServingError:
                self._keys_seen = changed  # until the next change, the keys that were read last stay valid
                raise
            self.gateway.serve(self._metadata, keys)
            self._accepted_keys, self._keys_seen = keys, changed
            self._succeeded("keys")

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

    def _refresh_certificates(self, now: datetime) -> None:
        if self.gateway.alive and self.gateway.refresh_tls(now):
            self._succeeded("tls")

    def _rotate_logs(self) -> None:
        if self.gateway.alive and self._logs.rotate():
            self._succeeded("logs")

    def _write_record(self, state: State | None = None, model: TorchServe | None = None) -> None:
        model = model or self.model
        is_running = self.gateway.alive and model.alive
        record = {
            **server_record(self.gateway, model),
            "pid": os.getpid(),
            "state": state or ("ready" if is_running else "restarting"),
            "reason": "; ".join(reason for reason in self._reasons.values() if reason),
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
