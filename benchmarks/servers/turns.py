"""One server at a time: the others are stopped where they stand."""

import time

from benchmarks.servers.ground import Ground, Running, ask
from benchmarks.servers.process import freeze, thaw

WARM_UP_S, SETTLE_S = 4, 1


def turn(server: Running) -> None:
    """Let it go on."""
    thaw(*server.pids)


def rest(server: Running, ground: Ground) -> None:
    """Stop a server once it has nothing on its way: its time-outs would run while it stands still.

    wrk hangs up on up to 256 requests when it ends; the answer to one asked after them comes last.
    """
    ask(server.target, ground.ids[0], timeout_s=60)
    time.sleep(SETTLE_S / 2)
    freeze(*server.pids)
