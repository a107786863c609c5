"""The interface of a target, which splits traffic between stable and canary. Every action may be repeated."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from core.errors import ServingError


@dataclass(frozen=True)
class Candidate:
    """A verified, signed archive."""

    archive: str
    """A path or URI that the target can load; it never changes its content."""
    sha256: str
    version: str
    """The model's version in the bundle: 12 hex digits."""

    @property
    def path(self) -> Path:
        return Path(self.archive)


class NotYet(ServingError):
    """An action is under way, for example while pods start, and is repeated at the next tick. It is no
    failure."""


@dataclass(frozen=True)
class TargetState:
    """The actual state, not the intended one."""

    weight: int
    """Percent of the traffic that the canary gets."""
    mirror: bool
    canary: str | None
    """sha256 of the archive that is deployed as canary; None: there is no canary."""
    stable: str | None
    ready: bool
    """Whether the canary answers real predictions."""
    detail: str = ""
    """Why it is not ready, as text."""
    intended: int | None = None
    """The weight that was set last, where the target stores it separately. A canary with an intended weight
    of 0 is being taken back; one with 0 instead of an intended 10 has failed and may recover."""
    needs_node: bool = False
    """A pod of the canary waits for a node, or one of stable without which the next share cannot be set. The
    cluster may add one, which takes minutes."""
    starting_since: datetime | None = None
    """When such a pod got its node, if nothing of it has failed since."""
    serves: bool = True
    """Whether the stable archive has servers that are up."""
    unmarked: str = ""
    """The address of the stable archive where no rollout has deployed it; `stable` is None then."""


class Target(Protocol):
    """All methods raise ServingError (or another ChurnError) when the servers or the cluster cannot be
    reached."""

    name: str
    can_mirror: bool
    """False: a shadow stage is a dark launch. The canary is ready at weight 0 and gets no requests;
    `set_weight(0, mirror=True)` succeeds, `observe` still returns mirror False, and there is no evidence.
    Such a stage ends after its `min_s`, whatever its `min_requests`, and never times out."""

    def observe(self) -> TargetState: ...

    def serving(self) -> Candidate | None:
        """The stable archive, as far as the target shows it: sha256 and version are empty where no rollout
        has deployed it. None: nothing serves."""

    def deploy(self, candidate: Candidate) -> None:
        """Start the canary at weight 0. Returns at once or when it is ready, which `observe` shows."""

    def set_weight(self, percent: int, mirror: bool = False) -> None:
        """Returns when traffic is split so."""

    def promote(self, candidate: Candidate) -> None:
        """The canary becomes stable and gets all requests; the former stable is stopped after its last
        request."""

    def rollback(self) -> None:
        """Send all traffic to stable, then remove the canary."""

    def restore(self, candidate: Candidate) -> None:
        """Make an earlier archive stable again, without a failed request."""


class ClusterTarget(Target, Protocol):
    """A target whose service is declared by manifests, which name no model."""

    def begin(self, candidate: Candidate) -> None:
        """Let the first archive serve, where nothing serves yet. It may be repeated. Raises NotYet while it
        is not ready, and ServingError where another one serves."""

    def tidy(self) -> None:
        """While no rollout runs: take over what the manifests declare beside the service."""
