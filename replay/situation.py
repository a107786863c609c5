"""What a policy of the whole loop decides from, and its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from replay.served import ServedModel
from replay.signals import Signals
from retraining.decision import Attempt


@dataclass(frozen=True)
class Situation:
    """What a policy decides from."""

    step: int
    """Number of the moment, from 0."""
    champion: ServedModel
    champion_loss: float
    """Log-loss of the champion on its test rows when it was trained."""
    served_since: datetime
    """The first moment at which the champion served."""
    signals: Signals
    customers: int
    """Who were served at the moment before."""
    attempts: Sequence[Attempt]
    """The trainings so far."""


@dataclass(frozen=True)
class Choice:
    """Whether a model is trained now, and why."""

    train: bool
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)
