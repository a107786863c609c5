"""What a policy of the whole loop decides from, and its answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pipelines.context import Context
from replay.served import ServedModel
from replay.signals import Signals
from retraining.decision import Outcome


@dataclass(frozen=True)
class Situation:
    """What a policy decides from."""

    context: Context
    """The workspace at the moment."""
    step: int
    """Number of the moment, from 0."""
    champion: ServedModel
    champion_loss: float
    """Log-loss of the champion on its test rows when it was trained."""
    served_since: datetime
    """The first moment at which the champion served."""
    signals: Signals


@dataclass(frozen=True)
class Choice:
    """Whether a model is trained now, and why."""

    train: bool
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)


class Policy(Protocol):
    """Whether a model is trained."""

    def decide(self, situation: Situation) -> Choice: ...

    def trained(self, context: Context, outcome: Outcome, detail: str) -> None:
        """How a training ended, which it had asked for or which was the first."""


@dataclass(frozen=True)
class Rule:
    """A policy without a memory."""

    decide: Callable[[Situation], Choice]

    def trained(self, context: Context, outcome: Outcome, detail: str) -> None:
        """The next decision does not depend on it."""
