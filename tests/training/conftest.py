import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

from churn.settings import Settings, load_settings
from core.workspace import Workspace
from support.fits import fit_settings
from support.training_frames import cdnow_frame, cdnow_records
from training.train import train

SMALL = (
    "training.epochs=4",
    "training.batch_size=256",
    "training.learning_rate=0.003",
    "training.baselines=[base_rate, logistic_regression, random_forest, bg_nbd]",
    "model.hidden=[64, 64]",
    "model.seeds=[0, 1]",
)
"""Settings with which 2,000 customers of CDNOW train in seconds, to a model that is honest and passes."""


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all workers of this test run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "training-shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def small(shared: Path) -> Settings:
    return load_settings(overrides=[*SMALL, f"workspace={shared / 'trained'}"])


@pytest.fixture(scope="session")
def rows(shared: Path, small: Settings) -> pd.DataFrame:
    """2,142 customers of CDNOW at 13 snapshots."""
    frame, records = shared / "rows.parquet", shared / "records.parquet"
    with FileLock(shared / "rows.lock"):
        if not frame.exists():
            log = cdnow_records(2000)
            log.to_parquet(records, index=False)
            cdnow_frame(log, small.features).to_parquet(frame, index=False)
    return pd.read_parquet(frame)


@pytest.fixture(scope="session")
def trained(shared: Path, small: Settings, rows: pd.DataFrame) -> Workspace:
    """A workspace that holds an honest model. Read it; take `workspace` to change it."""
    files = small.files
    with FileLock(shared / "trained.lock"):
        if not files.training.exists():
            files.data.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(shared / "records.parquet", files.records)
            window = {"start": "1997-01-01T00:00:00+00:00", "end": "1998-07-01T00:00:00+00:00"}
            files.manifest.write_text(json.dumps({"id_type": "integer", "window": window}))
            train(rows, fit_settings(small), files)
    return files


@pytest.fixture
def workspace(trained: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the trained workspace."""
    shutil.copytree(trained.root, tmp_path / "ws", symlinks=True)
    return Workspace(tmp_path / "ws")
