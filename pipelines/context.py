"""The arguments of every step: settings, time, progress, and the person who gave the command."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, Self

from core.workspace import Workspace
from data.config import DataConfig
from features.spec import FeaturesConfig
from model.config import ModelConfig
from monitoring.config import MonitoringConfig
from pipelines.backup.config import BackupConfig
from retraining.config import RetrainConfig
from rollout.config import RolloutConfig
from serving.config import GatewayConfig, ServingConfig
from stream.config import StreamConfig
from training.config import DecisionConfig, GatesConfig, TrainingConfig, TuningConfig


class Stages(Protocol):
    """The configs of all stages; `Settings` of the command line is one."""

    @property
    def files(self) -> Workspace: ...
    @property
    def given(self) -> frozenset[str]: ...
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
    @property
    def rollout(self) -> RolloutConfig: ...
    @property
    def retrain(self) -> RetrainConfig: ...
    @property
    def monitoring(self) -> MonitoringConfig: ...
    @property
    def backup(self) -> BackupConfig: ...
    @property
    def stream(self) -> StreamConfig: ...

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self: ...


@dataclass(frozen=True)
class Context:
    """What a step or command works with."""

    settings: Stages
    as_of: datetime
    """The present time, for a step that needs it."""
    progress: Callable[[str], None]
    """Reports progress to a person who waits."""
    who: str = "churn"
    """Name of the person who gave the command, for the log of decisions."""
    overrides: tuple[tuple[str, str], ...] = ()
    """Gates that are overridden, each with the reason."""
    clock: Callable[[], datetime] | None = None
    """The clock, for work that takes minutes and needs the current time; None: the time is always `as_of`."""
    place: Workspace | None = None
    """Where steps read and write files; None: in the workspace of the settings."""
    known_until: datetime | None = None
    """The moment that is replayed: rows of the source from then on are left out, and features are computed as
    of it. None: everything in the source is known."""

    def now(self) -> datetime:
        """The time by the clock, or `as_of` without one."""
        return self.as_of if self.clock is None else self.clock()

    @property
    def files(self) -> Workspace:
        """`place`, or the workspace of the settings."""
        return self.settings.files if self.place is None else self.place
