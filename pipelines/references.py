"""The rows that each registered model was trained and tested on, with which monitors compare production.

The training set and the scores of a workspace are those of its newest training, which may never serve. So
packaging links those of the packaged model into a folder of its version; a link takes no space until the
original is replaced.
"""

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from core.workspace import Workspace
from training.config import TrainingConfig
from training.registry.model_registry import Registry

TEST_SCORES = "test_scores.parquet"


def reference_folder(files: Workspace, version: str) -> Path:
    """Where the reference rows of a model version are: `training-set.parquet` and `test_scores.parquet`."""
    return files.model_store / "references" / version


def reference_rows(files: Workspace, version: str) -> tuple[Path, Path]:
    """The training set and the test scores of a model version. A version that was registered before
    references were stored has none, and gets those of the newest training."""
    folder = reference_folder(files, version)
    if version and folder.is_dir():
        return folder / files.training_set.name, folder / TEST_SCORES
    return files.training_set, files.training / TEST_SCORES


def trained_until(files: Workspace, version: str, horizon: timedelta) -> datetime | None:
    """The end of the horizon of the newest rows that a model version was trained on, UTC; None without a
    reference. Training rows are those whose horizon had ended by the first moment of the test rows."""
    folder = reference_folder(files, version)
    if not version or not folder.is_dir():
        return None
    first_test = _times(folder / TEST_SCORES)[0]
    known = [one + horizon for one in _times(folder / files.training_set.name) if one + horizon <= first_test]
    return known[-1] if known else None


def _times(rows: Path) -> list[datetime]:
    """The different times of the rows, ascending."""
    found = ds.dataset(rows).to_table(columns=["event_timestamp"])["event_timestamp"]
    moments: list[datetime] = pc.unique(found.cast(pa.timestamp("us", "UTC"))).to_pylist()
    return sorted(moment.astimezone(UTC) for moment in moments)


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
