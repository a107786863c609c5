"""The settings of a fit and a trained model, made from the settings of the command line."""

from typing import Any

from churn.settings import Settings
from core.workspace import Workspace
from training.config import DecisionConfig
from training.learn.resolved import FitSettings
from training.trained import TrainedModel


def fit_settings(settings: Settings, shape: Any = None, **replaced: Any) -> FitSettings:
    """`replaced`: `spec`, `model` or `training` in place of those in `settings`."""
    parts = {"spec": settings.features, "model": settings.model, "training": settings.training}
    return FitSettings(shape or settings.data.shape, **(parts | replaced))


def trained_model(settings: Settings, files: Workspace, **replaced: Any) -> TrainedModel:
    """The model in `files`, which acts at the threshold of `configs/training.yaml`."""
    return TrainedModel(files, fit_settings(settings, **replaced), DecisionConfig(threshold="training"))
