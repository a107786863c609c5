"""What a controller works with: its connections, its clock, the lease and the journal."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from core.errors import ChurnError
from rollout.config import RolloutConfig
from rollout.journal import Journal
from rollout.lease import Lease
from rollout.notify import Notify, no_notice
from rollout.observers.observer import Observer
from rollout.registry import RegistryProjection
from rollout.store import Store
from rollout.targets.target import Target


@dataclass(frozen=True)
class Connections:
    """The systems that a controller reads and changes."""

    store: Store
    target: Target
    observer: Observer
    registry: RegistryProjection
    notify: Notify = no_notice


@dataclass(frozen=True)
class Clock:
    now: Callable[[], datetime]
    """An aware UTC time."""
    sleep: Callable[[float], None]
    """For so many seconds."""


@dataclass(frozen=True)
class Session:
    """One controller at work. `config` contains the plan of the rollout."""

    config: RolloutConfig
    connections: Connections
    clock: Clock
    lease: Lease
    journal: Journal
    fault_point: Callable[[str], None]
    """Called with the name of a point in rollout/controller.py, FAULT_POINTS."""

    def counters(self) -> dict[str, float] | None:
        """The proxy's counters now; None where they cannot be read."""
        try:
            return self.connections.observer.mark()
        except ChurnError:
            return None
