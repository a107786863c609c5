"""The settings of `configs/replay.yaml`."""

from typing import Any

from pydantic import Field

from core.config import Config


class Prices(Config):
    """All in the same unit, for example euros."""

    value: float = Field(1.0, gt=0)
    """Of one nat of one customer's log-loss."""
    training: float = Field(50.0, ge=0)
    """Of one training, with its gates."""
    rollout: float = Field(10.0, ge=0)
    """Of one rollout."""

    @property
    def model(self) -> float:
        """Of one training with its rollout."""
        return self.training + self.rollout


class PerformanceRule(Config):
    """The policy `performance`."""

    excess: float = Field(0.05, gt=0)
    """A model is trained when the newest known log-loss is above that at its training by this share."""


class DriftRule(Config):
    """The policy `drift`."""

    psi: float = Field(0.2, gt=0)
    """A model is trained when the population stability index of any input is above this."""


class ReplayConfig(Config):
    """The settings of `configs/replay.yaml`."""

    training: dict[str, Any] = Field(default_factory=dict)
    """Keys of `training` with other values in a replay."""
    model: dict[str, Any] = Field(default_factory=dict)
    """Keys of `model` with other values in a replay."""
    rollout: dict[str, Any] = Field(default_factory=dict)
    """Keys of `rollout` with other values in a replay."""
    requests_per_s: float = Field(50.0, gt=0)
    """Requests in a simulated second while a canary is judged; customers take turns."""
    policies: tuple[str, ...] = Field(("ours",), min_length=1)
    """What `churn replay` replays without --policy: never, every:N, drift, performance, ours."""
    demotion_alpha: float = Field(0.01, gt=0, lt=0.5)
    """The largest probability with which a model is taken back that loses no more than the one before."""
    costs: Prices = Prices()
    """Of loss, trainings and rollouts, for the report."""
    performance: PerformanceRule = PerformanceRule()
    """The customary rule on known outcomes."""
    drift: DriftRule = DriftRule()
    """The customary rule on inputs."""
