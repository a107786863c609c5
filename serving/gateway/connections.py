"""The connections of one Envoy: how they end, and how long one is in use, without cutting a request."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from serving.gateway.admin import EnvoyAdmin
from serving.process.listener import not_accepted, refuse_newcomers
from serving.torchserve.upstream import Upstream

ACCEPTED_WITHIN_S = 2.0
PAUSE_S = 1.0
"""A client that has sent nothing for so long is unlikely to send a request just when Envoy ends."""
CHECK_INTERVAL_S = 0.05
CHECKS_IN_A_ROW = 4
"""A worker thread of Envoy may still use what the main thread has dropped, so one check is not enough."""

log = logging.getLogger("churn.gateway")


@dataclass(frozen=True)
class Connections:
    admin: EnvoyAdmin
    pid: int
    port: int
    is_alive: Callable[[], bool]

    def close(self) -> None:
        """Refuse new connections. Each answer from now on is the last on its connection."""
        try:
            refuse_newcomers(self.pid, self.port)
            if not _holds(lambda: not_accepted(self.pid, self.port) == 0, ACCEPTED_WITHIN_S):
                log.info("the gateway closes before it has accepted every connection: some may be cut")
        except OSError as error:
            log.info("the gateway closes, and the newest connections may be cut: %s", error)
        self.admin.drain()

    def wait_until_quiet(self, timeout_s: float) -> bool:
        """Return True when no client is connected, or those that are have paused; False when time runs out.

        That no request is in flight is not enough: the next may come on a connection that stays open, or on
        a new one that was not read yet. Its answer closes that connection.
        """
        deadline = time.monotonic() + timeout_s
        requests, since = -1, 0.0
        while (now := time.monotonic()) < deadline and self.is_alive():
            numbers = self.admin.stats(r"^http\.public\.downstream_(cx_active|rq_active|rq_total)$")
            connected, in_flight, total = (
                int(numbers[f"http.public.downstream_{name}"])
                for name in ("cx_active", "rq_active", "rq_total")
            )
            if in_flight or total != requests:
                requests, since = total, now
            elif now - since >= (PAUSE_S if connected else CHECKS_IN_A_ROW * CHECK_INTERVAL_S):
                return True
            time.sleep(CHECK_INTERVAL_S)
        return not self.is_alive()

    def wait_until_unused(self, upstream: Upstream, timeout_s: float) -> bool:
        """Return True when no request to `upstream` is in flight, False when time runs out first.

        No slot may name `upstream` any more: then Envoy has a connection to it only for a request in flight.
        """
        return _holds(lambda: not self.is_alive() or self._established(upstream) == 0, timeout_s)

    def _established(self, upstream: Upstream) -> int:
        try:
            connections = psutil.Process(self.pid).connections("tcp")
        except psutil.Error:  # Envoy has just ended, and with it all connections
            return 0
        return sum(
            1
            for connection in connections
            if connection.raddr
            and connection.raddr.port == upstream.inference_port
            and connection.status == "ESTABLISHED"
        )


def _holds(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether `condition` was true in several checks in a row before time ran out."""
    deadline = time.monotonic() + timeout_s
    in_a_row = 0
    while time.monotonic() < deadline:
        in_a_row = in_a_row + 1 if condition() else 0
        if in_a_row == CHECKS_IN_A_ROW:
            return True
        time.sleep(CHECK_INTERVAL_S)
    return False
