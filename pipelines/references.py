"""The rows that each registered model was trained and tested on, with which monitors compare production.

The training set and the scores of a workspace are those of its newest training, which may never serve. So
packaging links those of the packaged model into a folder of its version; a link takes no space until the
original is replaced.
"""

import os
import shutil
from pathlib import Path

from core.workspace import Workspace
from training.config import TrainingConfig
from training.registry.model_registry import Registry

TEST_SCORES = "test_scores.parquet"


def reference_folder(files: Workspace, version: str) -> Path:
    """Where the reference rows of a model version are: `training-set.parquet` and `test_scores.parquet`."""
    return files.model_store / "references" / version


def keep_reference(files: Workspace, version: str, training: TrainingConfig) -> None:
    """Link the rows of the newest training as the reference of `version`, and remove references of versions
    without an alias: they do not serve, and no rollback returns to them."""
    folder = reference_folder(files, version)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for source in (files.training_set, files.training / TEST_SCORES):
        os.link(source.resolve(), folder / source.name)
    registry = Registry(training)
    with_alias = {
        registry.version(number).tags.get("model_version") for number in registry.aliases().values()
    }
    for other in folder.parent.iterdir():
        if other.name != version and other.name not in with_alias:
            shutil.rmtree(other)
