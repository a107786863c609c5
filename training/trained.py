"""The newest training of a workspace, with the settings that decide about its use."""

from dataclasses import dataclass

from core.workspace import Workspace
from training.config import DecisionConfig
from training.decision_value import acting_threshold
from training.learn.resolved import FitSettings


@dataclass(frozen=True)
class TrainedModel:
    """What the gates judge, the archive packages and MLflow records: `files.training` and its settings."""

    files: Workspace
    settings: FitSettings
    """As given, with the best values of the study."""
    decision: DecisionConfig
    name: str = "churn"
    """The name under which it is served."""

    @property
    def threshold(self) -> float:
        """Customers above it are at risk; it is packaged. Raises ConfigError as `acting_threshold` does."""
        return acting_threshold(self.decision, self.settings.training.threshold)
