"""Where traffic is split: the smallest interface that a controller needs. Every action may be repeated."""

from dataclasses import dataclass
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
    """Of the model, as the bundle says: 12 hex digits."""

    @property
    def path(self) -> Path:
        return Path(self.archive)


class NotYet(ServingError):
    """What was asked for is under way, for example pods that start: to be asked for again at the next look.
    Nothing is out of reach, and nothing has failed."""


@dataclass(frozen=True)
class TargetState:
    """What is really so, never what was asked for."""

    weight: int
    """Percent of the traffic that the canary gets."""
    mirror: bool
    canary: str | None
    """sha256 of the archive that is deployed as canary; None: there is no canary."""
    stable: str | None
    ready: bool
    """Whether the canary answers real predictions."""
    detail: str = ""
    """Why it is not ready, for a person."""
    asked: int | None = None
    """The weight that was set last, where the target holds that separately: a canary of which 0 was asked is
    being taken back, one that has 0 of the 10 that were asked has failed and may come back by itself."""
    unmarked: str = ""
    """The address of what is stable, where that is nothing that a rollout has deployed; `stable` is None."""


class Target(Protocol):
    """Raises ServingError (or a ChurnError of its own) when the thing behind it cannot be reached."""

    name: str
    can_mirror: bool
    """False: a shadow stage is a dark launch. The canary is up and ready at weight 0, and nobody asks it
    anything; `set_weight(0, mirror=True)` succeeds, `observe` goes on saying mirror False, and there is no
    evidence. Such a stage is over after its `min_s`, whatever its `min_requests`, and never times out."""

    def observe(self) -> TargetState: ...

    def serving(self) -> Candidate | None:
        """What is stable, as far as it says so itself: sha256 and version are empty where it was not deployed
        by a rollout. None: nothing is."""

    def deploy(self, candidate: Candidate) -> None:
        """Bring the canary up at weight 0. Returns at once or when it is up; `observe` tells."""

    def set_weight(self, percent: int, mirror: bool = False) -> None:
        """Returns when traffic is really split so."""

    def promote(self, candidate: Candidate) -> None:
        """The canary becomes stable and answers all; what was stable is stopped after its last request."""

    def rollback(self) -> None:
        """All traffic to stable first, then the canary goes."""

    def restore(self, candidate: Candidate) -> None:
        """Put an earlier archive back as stable, without a failed request."""
