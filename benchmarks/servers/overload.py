"""256 clients against ours: what is answered, and how soon a lone request is served again."""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from benchmarks.servers import report
from benchmarks.servers.contestants import OURS, OWN
from benchmarks.servers.ground import Ground, Running, client, send
from benchmarks.servers.load import Load, load
from benchmarks.servers.turns import WARM_UP_S

CONNECTIONS = 256
RECOVERED_WITHIN_S = 2.0
ALLOWED = {"200", "503 with Retry-After"}
console = Console(stderr=True, highlight=False)


def measure(ground: Ground, options: argparse.Namespace) -> int:
    """Exit code 1 where an answer was not allowed, or a lone request waited for too long afterwards."""
    with OWN[OURS](ground) as server:
        load(server.target, ground.ids_file, 64, WARM_UP_S)
        before = lone(server, ground.ids[:200])
        found = load(server.target, ground.ids_file, CONNECTIONS, options.seconds, statuses=True)
        ended = time.monotonic()
        first = send(server.target, ground.ids[0])
        recovered_s = time.monotonic() - ended
        after = lone(server, ground.ids[:200])
    held = first.status_code == 200 and recovered_s < RECOVERED_WITHIN_S and good(found)
    held = held and after["p50"] < 2 * before["p50"]
    result: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "connections": CONNECTIONS,
        **asdict(found),
        "per_s": found.answered_per_s,
        "recovered_s": recovered_s,
        "lone_before_ms": before,
        "lone_after_ms": after,
        "held": held,
    }
    report.write_overload(options.out, result)
    console.print(result)
    console.print("held" if held else "did not hold")
    return 0 if held else 1


def good(found: Load) -> bool:
    return set(found.statuses) <= ALLOWED and not found.broken and not found.timeouts


def lone(server: Running, ids: Sequence[int | str]) -> dict[str, float]:
    """Latency of one request at a time, in ms."""
    taken = []
    with client(server.target) as connection:
        for user_id in ids:
            begun = time.perf_counter()
            connection.post(server.target.url, content=server.target.body % user_id)
            taken.append(1000 * (time.perf_counter() - begun))
    return {"p50": statistics.median(taken), "p99": statistics.quantiles(taken, n=100)[98]}
