"""What a schedule of trainings costs: the loss of the customers, the trainings and the rollouts.

C = value * (loss of all scored customers, in nats) + (training + rollout) * trainings. The first model is
trained at moment 0 for every schedule, serves from there on, and is not charged. A model that is trained at
moment s serves from moment s + deploy_steps on.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.errors import ReplayError

Floats = NDArray[np.float64]
Schedule = tuple[int, ...]
"""The moments, from 1 on and ascending, at which a model is trained."""


@dataclass(frozen=True)
class Costs:
    """Prices, all in the same unit."""

    value: float
    """Of one nat of one customer's loss."""
    training: float
    rollout: float
    deploy_steps: int = 1
    """Steps from a training to the first moment at which its model scores the customers."""

    def __post_init__(self) -> None:
        for name in ("value", "training", "rollout", "deploy_steps"):
            if not getattr(self, name) >= 0:
                raise ReplayError(
                    f"{name}: {getattr(self, name)} is negative or not a number; give 0 or more"
                )

    @property
    def model(self) -> float:
        """Of one training with its rollout."""
        return self.training + self.rollout


@dataclass(frozen=True)
class Bill:
    """What a schedule costs, by its parts."""

    loss_nats: float
    """The loss of all scored customers."""
    trainings: int
    rollouts: int
    total: float
    """In the unit of the prices."""


def in_service(schedule: Iterable[int], steps: int, deploy_steps: int) -> NDArray[np.int64]:
    """[steps]: the moment at which the model was trained that scores the customers at each moment."""
    serving = np.zeros(steps, np.int64)
    for trained in sorted(schedule):
        if not 0 < trained < steps:
            raise ReplayError(f"schedule: moment {trained} is not one of 1 to {steps - 1}")
        serving[trained + deploy_steps :] = trained
    return serving


def bill(total: Floats, schedule: Iterable[int], costs: Costs) -> Bill:
    """The costs of a schedule, from the matrix `total` [T, T] of summed losses (LossMatrix.total)."""
    trained, steps = tuple(schedule), len(total)
    serving = in_service(trained, steps, costs.deploy_steps)
    nats = float(total[serving, np.arange(steps)].sum())
    charged = costs.value * nats + costs.model * len(trained)
    return Bill(nats, len(trained), len(trained), charged)
