"""What a decision about a training is made from, and what it is. Plain data without any source or clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from monitoring.findings import Finding, Monitored


class Action(StrEnum):
    """The answer of the governor."""

    YES = "yes"
    NO = "no"
    VETOED = "vetoed"
    """A trigger asked for a training, and the training rows or the features would be wrong."""


class Trigger(StrEnum):
    """What asks for a training. The order is that of importance."""

    PERSON = "person"
    PERFORMANCE = "performance"
    EARLY_LABELS = "early_labels"
    DRIFT = "drift"
    NEW_LABELS = "new_labels"
    AGEING = "ageing"
    SCHEDULE = "schedule"


class Obstacle(StrEnum):
    """Why a training that a trigger asked for does not start."""

    VETO = "veto"
    RUN = "run"
    """Another run has not ended."""
    ROLLOUT = "rollout"
    """A candidate is being tried on customers."""
    COOLDOWN = "cooldown"
    BUDGET = "budget"
    FEW_LABELS = "few_labels"
    SAME_LABELS = "same_labels"


class Outcome(StrEnum):
    """What became of a run."""

    RUNNING = "running"
    ROLLED_OUT = "rolled_out"
    """Its candidate passed the gates, and a rollout was started."""
    REFUSED = "refused"
    """The gates refused its candidate."""
    FAILED = "failed"
    """A step failed, and the run was given up."""


@dataclass(frozen=True)
class Window:
    """A run of the monitor, as far as a decision reads it."""

    at: datetime
    since: datetime
    version: str
    """The model version that served at `at`; empty where it is not known."""
    findings: Sequence[Finding] = ()
    evidence_sha256: str = ""

    @classmethod
    def of(cls, run: Monitored) -> "Window":
        return cls(run.at, run.since, run.version, tuple(run.checked.findings), run.evidence_sha256)


@dataclass(frozen=True)
class Labels:
    """Rows with a known outcome."""

    matured: int
    """Rows whose horizon has passed."""
    new: int
    """Of these, the rows that matured after the labels of the last training."""
    newest: datetime | None = None
    """The end of the newest horizon that has passed."""
    customers: int = 0
    """Customers of the newest labelled snapshot."""


@dataclass(frozen=True)
class PersonRequest:
    """A person asks for a training now, without regard to cooldown, budget and numbers of labels."""

    number: int
    at: datetime
    who: str
    reason: str
    override_veto: bool = False


@dataclass(frozen=True)
class Aged:
    """What a model of this age lost more than a fresh one on the same customers."""

    at: datetime
    """The moment of these customers."""
    days: float
    """The age."""
    nats: float
    """The mean of a customer."""


@dataclass(frozen=True)
class Evidence:
    """Everything that was observed. Its digest identifies the decision (retraining/codec.py)."""

    model: str
    windows: Sequence[Window]
    """The newest checks, the oldest first: as many as `RetrainConfig.checks_read`."""
    labels: Labels
    request: PersonRequest | None = None
    """The oldest request that has no decision yet."""
    ageing: Sequence[Aged] = ()
    """As measured so far."""


@dataclass(frozen=True)
class Attempt:
    """A run that was granted."""

    run: str
    started: datetime
    ended: datetime | None
    """When the run, and the rollout of its candidate, ended; None: they have not."""
    outcome: Outcome
    evidence_at: datetime | None = None
    """The newest check that its decision read. Checks up to it ask for no other training."""


@dataclass(frozen=True)
class State:
    """What was done before."""

    version: str
    """The model version that serves; empty where it is not known."""
    trained: datetime | None
    """When the model that serves was trained; None: it is not known."""
    attempts: Sequence[Attempt] = ()
    """The oldest first. All that matter: the last one and those in the span of the budget."""
    rollout: str = ""
    """The rollout that is under way; empty: there is none."""


@dataclass(frozen=True)
class Decision:
    """Whether a model is trained now."""

    action: Action
    trigger: Trigger | None
    """The most important one that holds; None: none holds."""
    obstacle: Obstacle | None
    """Why the answer is not yes although a trigger holds."""
    reason: str
    """One sentence for a person, with the numbers."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """The numbers that were compared."""

    @property
    def granted(self) -> bool:
        return self.action is Action.YES
