"""The health of a controller and the state of its rollouts over HTTP, for probes, Prometheus and its alerts.

GET /livez: 200 while its loop runs. GET /readyz: 200 while it reaches the database. GET /metrics: the state
of the model's newest rollout by the database, and the notices that this process could not deliver.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from core.pages import serve_pages
from rollout.database.projections import Projection
from rollout.errors import RolloutError
from rollout.notify import Notifier
from rollout.state import END, PHASES, Rollout
from rollout.store import Store


@dataclass(eq=False)
class Health:
    """The health of the loop in rollout/attendant.py, which calls `beat` at each turn."""

    trouble: str = ""
    """Why the database could not be reached at the last turn; empty: it could."""
    _beat: float = field(default_factory=time.monotonic)

    def beat(self) -> None:
        self._beat = time.monotonic()

    @property
    def silent_s(self) -> float:
        return time.monotonic() - self._beat


@dataclass(frozen=True)
class Standing:
    """Collects the metrics of one model's rollouts at each scrape."""

    store: Store
    model: str
    health: Health
    notifier: Notifier

    def collect(self) -> Iterator[Metric]:
        yield _gauge("loop_age_seconds", "Since the loop has turned last.", self.health.silent_s)
        failed = CounterMetricFamily(
            "churn_rollout_notices_lost", "Notices that no sink got.", labels=["reason"]
        )
        failed.add_metric(["dropped"], self.notifier.dropped)
        failed.add_metric(["failed"], sum(self.notifier.failed.values()))
        yield failed
        try:
            rollout, projections = self.store.newest(self.model), self.store.projections(self.model)
        except RolloutError:
            yield _gauge("database_reachable", "Whether rollout.database answers.", 0)
            return
        yield _gauge("database_reachable", "Whether rollout.database answers.", 1)
        yield from standing_metrics(rollout, projections)


def standing_metrics(rollout: Rollout | None, projections: Sequence[Projection]) -> Iterator[Metric]:
    """The state of the newest rollout by the database. `monitoring/exported.py` has the same metrics."""
    phases = GaugeMetricFamily("churn_rollout_phase", "1: the newest rollout's phase.", labels=["phase"])
    for phase in PHASES:
        phases.add_metric([phase], float(rollout is not None and rollout.phase == phase))
    yield phases
    running = rollout is not None and rollout.phase not in END
    yield _gauge("running", "Whether a rollout runs.", running)
    yield _gauge("paused", "Whether it waits for a person.", bool(rollout and rollout.paused))
    yield _gauge("stuck", "Whether what it does again and again fails.", bool(rollout and rollout.stuck))
    agrees = GaugeMetricFamily(
        "churn_rollout_agrees", "Whether it is as recorded in the database.", labels=["projection"]
    )
    for found in projections:
        agrees.add_metric([found.name], float(found.agrees))
    yield agrees


@contextmanager
def answering(address: str, standing: Standing, longest_s: float) -> Iterator[str]:
    """Serves the three paths at `address` (host:port; port 0: a free one is chosen) inside the block, and
    gives the URL. `longest_s`: the longest time that one turn of the loop may take."""
    registry = CollectorRegistry()
    registry.register(standing)

    def live() -> tuple[int, str]:
        silent_s = standing.health.silent_s
        return (200, "alive") if silent_s < longest_s else (503, f"the loop has stood for {silent_s:.0f} s")

    def ready() -> tuple[int, str]:
        return (503, standing.health.trouble) if standing.health.trouble else (200, "ready")

    def metrics() -> tuple[int, str]:
        return 200, generate_latest(registry).decode()

    with serve_pages(address, {"/livez": live, "/readyz": ready, "/metrics": metrics}) as url:
        yield url


def _gauge(name: str, help: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"churn_rollout_{name}", help, value=float(value))
