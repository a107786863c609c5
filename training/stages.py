"""The settings of every stage as one tree, read by both `churn` and `python -m training`."""

from pathlib import Path
from typing import Any

from core.config import Config
from data.config import DataConfig
from features.spec import FeaturesConfig
from model.config import ModelConfig
from training.config import DecisionConfig, GatesConfig, TrainingConfig, TuningConfig


class Stages(Config):
    """One field for each stage, named as its file in `configs/`."""

    workspace: Path
    """Folder for all files of a run."""
    data: DataConfig
    features: FeaturesConfig
    model: ModelConfig
    training: TrainingConfig
    tuning: TuningConfig
    gates: GatesConfig
    decision: DecisionConfig
    serving: Any
    gateway: Any
    """`serving` and `gateway` are validated by a higher room."""
