"""The settings of tuning and training: as configured, and with the study's best where none was given."""

import json
from typing import TYPE_CHECKING

from core.errors import TrainingError
from pipelines.context import Context

if TYPE_CHECKING:
    import pandas as pd

    from training.config import TuningConfig
    from training.learn.resolved import FitSettings
    from training.trained import TrainedModel


def given(context: Context) -> "FitSettings":
    """The settings of a fit as configured."""
    from training.learn.resolved import FitSettings

    settings = context.settings
    return FitSettings(settings.data.shape, settings.features, settings.model, settings.training)


def chosen(context: Context) -> "FitSettings":
    """The settings with the study's best in them, where a study has been run; what the user gave stays."""
    from training.tuning.space import apply

    if not context.files.tuned.is_file():
        return given(context)
    best = json.loads(context.files.tuned.read_text(encoding="utf-8"))["parameters"]
    found = {key: value for key, value in best.items() if key not in context.settings.given}
    return apply(found, given(context))


def searched(context: Context) -> "TuningConfig":
    """The study's config without the dimensions that the user gave; with none left there are no trials."""
    settings = context.settings
    space = {key: within for key, within in settings.tuning.space.items() if key not in settings.given}
    return settings.tuning.model_copy(update={"space": space} if space else {"space": space, "trials": 0})


def trained(context: Context) -> "TrainedModel":
    """The newest training, with its settings."""
    from training.trained import TrainedModel

    settings = context.settings
    return TrainedModel(context.files, chosen(context), settings.decision, settings.serving.model_name)


def training_rows(context: Context) -> "pd.DataFrame":
    """The training set: of a retraining run, the snapshots of the window that was chosen.

    Raises TrainingError if it was not built.
    """
    import pandas as pd

    try:
        rows = pd.read_parquet(context.files.training_set)
        if context.files.training_window.is_file():
            window = json.loads(context.files.training_window.read_text(encoding="utf-8"))
            left_out = pd.to_datetime(window["left_out"], utc=True)
            rows = rows[~rows["event_timestamp"].isin(left_out)]
        return rows
    except FileNotFoundError:
        raise TrainingError(
            f"{context.files.training_set}: not there; run `churn train` after the features"
        ) from None
