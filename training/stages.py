"""The settings of every stage as one tree, which `churn` and `python -m training` read alike."""

from pathlib import Path
from typing import Any

from data.config import Config, DataConfig
from features.spec import FeaturesConfig
from model.config import ModelConfig
from training.config import DecisionConfig, GatesConfig, TrainingConfig, TuningConfig


class Stages(Config):
    workspace: Path
    data: DataConfig
    features: FeaturesConfig
    model: ModelConfig
    training: TrainingConfig
    tuning: TuningConfig
    gates: GatesConfig
    decision: DecisionConfig
    serving: Any
    gateway: Any
    """Both of a room to the right, which knows what they may say."""
