"""What every step is given."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from data.config import DataConfig
from data.workspace import Workspace
from features.spec import FeaturesConfig
from model.config import ModelConfig
from serving.config import GatewayConfig, ServingConfig
from training.config import DecisionConfig, GatesConfig, TrainingConfig, TuningConfig


class Stages(Protocol):
    """The configs of all stages; the front door's `Settings` is one."""

    @property
    def files(self) -> Workspace: ...
    @property
    def data(self) -> DataConfig: ...
    @property
    def features(self) -> FeaturesConfig: ...
    @property
    def model(self) -> ModelConfig: ...
    @property
    def training(self) -> TrainingConfig: ...
    @property
    def tuning(self) -> TuningConfig: ...
    @property
    def gates(self) -> GatesConfig: ...
    @property
    def decision(self) -> DecisionConfig: ...
    @property
    def serving(self) -> ServingConfig: ...
    @property
    def gateway(self) -> GatewayConfig: ...


@dataclass(frozen=True)
class Context:
    settings: Stages
    as_of: datetime
    """The present, for a step that has to know it."""
    say: Callable[[str], None]
    """Progress, for a person who waits."""
    who: str = "churn"
    """Who asked, for the log of decisions."""
    overrides: tuple[tuple[str, str], ...] = ()
    """Gates to pass over, each with the reason."""

    @property
    def files(self) -> Workspace:
        return self.settings.files
