"""The health of a consumer, for probes: GET /livez and /readyz, beside /metrics.

/livez: 200 while the loop turns, also while a store is away, since a restart would not bring it back.
/readyz: 200 while the last try of the loop reached its stores.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest

from core.pages import serve_pages

LONGEST_TURN_S = 120.0
"""A batch of 10,000 purchases takes some seconds; Kafka gives the partitions away after 300 s."""


@dataclass(eq=False)
class Health:
    """What the consumer's loop reports: `beat` at each turn and each try, `trouble` while a store is away."""

    clock: Callable[[], float] = time.monotonic
    trouble: str = "the consumer has not begun"
    _last: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.beat()

    def beat(self) -> None:
        self._last = self.clock()

    def live(self) -> tuple[int, str]:
        silent_s = self.clock() - self._last
        if silent_s < LONGEST_TURN_S:
            return 200, "alive"
        return 503, f"the loop has stood for {silent_s:.0f} s"

    def ready(self) -> tuple[int, str]:
        return (503, self.trouble) if self.trouble else (200, "ready")


@contextmanager
def answering(address: str, registry: CollectorRegistry, health: Health) -> Iterator[str]:
    """Serves the three pages at `address` (host:port) inside the block, and gives the URL."""
    pages = {
        "/livez": health.live,
        "/readyz": health.ready,
        "/metrics": lambda: (200, generate_latest(registry).decode()),
    }
    with serve_pages(address, pages) as url:
        yield url
