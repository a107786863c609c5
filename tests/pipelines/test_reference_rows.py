"""Which rows production is compared with, and from when on predictions are not of training rows."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd

from core.workspace import Workspace
from pipelines.references import TEST_SCORES, reference_folder, reference_rows, trained_until

HORIZON = timedelta(days=90)


def stored(root: Path, training: list[str], tested: list[str]) -> Workspace:
    """A workspace with the reference of version `7`."""
    files = Workspace(root)
    folder = reference_folder(files, "7")
    folder.mkdir(parents=True)
    for name, days in ((files.training_set.name, training), (TEST_SCORES, tested)):
        times = pd.to_datetime(days, utc=True).as_unit("us")
        pd.DataFrame({"user_id": "u1", "event_timestamp": times}).to_parquet(folder / name)
    return files


def test_predictions_count_from_the_end_of_the_training_rows_horizon_on(tmp_path: Path) -> None:
    """Rows whose horizon reaches into the test period are in the training set and no training rows."""
    snapshots = [f"1997-{month:02d}-01" for month in range(4, 13)] + [
        "1998-01-01",
        "1998-02-01",
        "1998-03-01",
    ]
    files = stored(tmp_path, snapshots, ["1998-02-01", "1998-03-01"])
    assert trained_until(files, "7", HORIZON) == datetime(1997, 11, 1, tzinfo=UTC) + HORIZON
    assert trained_until(files, "8", HORIZON) is None
    assert trained_until(files, "", HORIZON) is None


def test_a_version_is_compared_with_its_own_rows_and_not_with_those_of_the_newest_training(
    tmp_path: Path,
) -> None:
    files = stored(tmp_path, ["1997-04-01"], ["1997-08-01"])
    training, scores = reference_rows(files, "7")
    assert training.parent == scores.parent == reference_folder(files, "7")
    assert training.is_file() and scores.is_file()
    assert reference_rows(files, "6")[0] == files.training_set
    assert reference_rows(files, "")[1] == files.training / TEST_SCORES
