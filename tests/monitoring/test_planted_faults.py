"""Faults that are planted in real data: each pages once and is named; without a fault there is no page."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.monitoring.faults import FAULTS, run
from benchmarks.monitoring.ground import Ground, ground
from churn.settings import load_settings
from monitoring.config import MonitoringConfig
from support.feature_records import cdnow

CONFIG = load_settings().monitoring.model_copy(update={"segments": ("country",)})
CUSTOMERS = 6_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder: Path = tmp_path_factory.mktemp("records")
    log = cdnow().assign(is_return=False)
    users = np.sort(log["user_id"].unique())[:CUSTOMERS]
    log["timestamp"] = log["timestamp"].dt.as_unit("us")
    log[log["user_id"].isin(users)].to_parquet(folder / "base-00000.parquet", index=False)
    return ground(load_settings().features, folder, 14, 24)


def planted(name: str | None, world: Ground, config: MonitoringConfig = CONFIG) -> dict[str, object]:
    moment: pd.Timestamp = world.moments[-3]
    return run(name, moment, world, config)


def test_without_a_fault_there_is_no_page(world: Ground) -> None:
    assert planted(None, world)["pages"] == []


# the country with a wrong currency has too few customers here; test_arrivals.py has that fault
@pytest.mark.parametrize("name", [name for name in FAULTS if "currency" not in name])
def test_a_fault_pages_and_is_named(world: Ground, name: str) -> None:
    found = planted(name, world)
    assert found["found"], found["pages"]
    assert found["wrong"] == 0, found["pages"]
