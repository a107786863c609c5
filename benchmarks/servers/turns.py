"""One server runs at a time; the others are suspended."""

import time

from benchmarks.servers.ground import Ground, Running, send
from benchmarks.servers.process import freeze, thaw

WARM_UP_S, SETTLE_S = 4, 1


def turn(server: Running) -> None:
    """Resumes a server."""
    thaw(*server.pids)


def rest(server: Running, ground: Ground) -> None:
    """Suspends a server after its last answer, since its time-outs would expire while it is suspended.

    wrk leaves up to 256 requests without reading their answers; a later request is answered after them.
    """
    send(server.target, ground.ids[0], timeout_s=60)
    time.sleep(SETTLE_S / 2)
    freeze(*server.pids)
