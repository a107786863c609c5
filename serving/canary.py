"""The canary: a second TorchServe, in the gateway's slot `canary`, started and stopped beside stable."""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from core.errors import ChurnError, ServingError
from serving.archive import Archive
from serving.gateway.process import Gateway
from serving.torchserve.server import TorchServe
from serving.torchserve.warmup import warm_up


class Canary:
    """At most one canary at a time. May be used from any thread.

    `make(archive)` returns a TorchServe that is not started yet. `retire(server)` stops one that no slot
    names any more, after its last answer.
    """

    def __init__(
        self, gateway: Gateway, make: Callable[[Archive], TorchServe], retire: Callable[[TorchServe], None]
    ) -> None:
        self._gateway, self._make, self._retire = gateway, make, retire
        self._server: TorchServe | None = None
        self._start: threading.Thread | None = None
        self._failure = ""

    @property
    def server(self) -> TorchServe | None:
        """The server that starts, serves, or has ended by itself; None when there is no canary."""
        return self._server

    @property
    def state(self) -> str:
        """Empty when it runs; otherwise the reason why it does not, in one line."""
        if self._server is None:
            return "there is no canary"
        if self._start is not None and self._start.is_alive():
            return "TorchServe is starting"
        if self._failure:
            return self._failure
        return "" if self._server.alive else "TorchServe ended by itself; see the canary's logs"

    def deploy(self, archive: Path) -> None:
        """Start it in the background, without traffic. Returns at once.

        A canary with another archive is stopped first. When the canary already serves or loads this archive,
        nothing changes.
        """
        if self._server is not None:
            if self._server.archive == archive.absolute() and not self._ended():
                return
            self.stop()
        self._server, self._failure = self._make(archive), ""
        self._start = threading.Thread(target=self._bring_up, args=(self._server,), name="canary-start")
        self._start.start()

    def stop(self) -> None:
        """Remove it from the gateway, wait for its last answers and end it. May be repeated."""
        server, self._server = self._server, None
        if server is not None and self._start is not None and self._start.is_alive():
            server.stop()  # it has no traffic yet, and its start fails now
            self._start.join()
        if self._gateway.alive:
            self._gateway.set_upstream("canary", None)
        if server is not None:
            self._retire(server)

    def _ended(self) -> bool:
        starting = self._start is not None and self._start.is_alive()
        return bool(self._failure) or (not starting and self._server is not None and not self._server.alive)

    def _bring_up(self, server: TorchServe) -> None:
        try:
            server.__enter__()
            warm_up(server)  # stable is warm too, so that their latencies can be compared
            if self._server is server:  # it was not stopped meanwhile
                self._gateway.set_upstream("canary", server.upstream)
        except (ChurnError, OSError) as error:
            self._failure = str(error)
        if self._server is not server or self._failure:
            with suppress(ServingError):
                server.stop()
