"""One study on several machines: each runs trials, and the workspace changes once, when all are finished."""

from core.errors import ConfigError, TrainingError
from pipelines.context import Context
from pipelines.engine import is_done
from pipelines.steps import STEPS
from pipelines.steps.settings import given, searched, training_rows

_STEPS = {step.name: step for step in STEPS}
ROWS, TUNE = _STEPS["training set"], _STEPS["tune"]


def run_trials(context: Context) -> None:
    """Runs trials of the study until it has all of them, beside other processes that do the same.

    Of the workspace it changes trial artifacts only, so it needs no lock. The step `tune`, which comes
    afterwards, then finds no trial to run. Raises ConfigError for a study that machines cannot share, and
    TrainingError when the training set is not that of the settings, because a process with other rows would
    run a study of its own.
    """
    from training.tuning.tune import tune

    storage = context.settings.tuning.storage
    if not storage.startswith("postgresql"):
        raise ConfigError(
            "--shared: tuning.storage is not PostgreSQL, and no other database locks for several machines;"
            " name one, or leave --shared out"
        )
    if not is_done(ROWS, context):
        raise TrainingError(
            f"{context.files.training_set}: not the training set of these settings and this code; run"
            " `churn steps run training-set` first, once"
        )
    tune(training_rows(context), given(context), searched(context), context.files, context.progress)
