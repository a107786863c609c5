from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from monitoring.drift import drift_over_time, psi

MOMENTS = pd.to_datetime(["2024-01-01", "2024-02-01", "2024-03-01"], utc=True)


@pytest.fixture
def snapshots(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    frames = []
    for step, moment in enumerate(MOMENTS):
        frame = pd.DataFrame(
            {
                "event_timestamp": moment,
                "steady": rng.normal(size=4000),
                "moving": rng.normal(loc=step, size=4000),
                "count": rng.poisson(0.3, size=4000),
                "plan": rng.choice(["a", "b"], size=4000) if step < 2 else "c",
            }
        )
        frame.loc[rng.random(4000) < 0.3 * step, "steady"] = np.nan if step == 2 else frame["steady"]
        frames.append(frame)
    path = tmp_path / "snapshots.parquet"
    pd.concat(frames).to_parquet(path)
    return path


def test_psi_equals_its_closed_form() -> None:
    expected, actual = np.array([0.5, 0.5]), np.array([0.8, 0.2])
    assert psi(expected, actual) == pytest.approx(0.3 * np.log(1.6) - 0.3 * np.log(0.4))
    assert psi(expected, expected) == 0


def test_what_moves_is_seen_and_what_stays_is_not(snapshots: Path) -> None:
    table = drift_over_time(snapshots, ["steady", "moving", "count", "plan"], MOMENTS[0])
    wide = table.pivot(index="event_timestamp", columns="feature", values="psi")
    assert (wide.loc[MOMENTS[0]] == 0).all()
    assert wide.loc[MOMENTS[1], "moving"] > 0.5 > 0.02 > wide.loc[MOMENTS[1], "count"]
    assert wide.loc[MOMENTS[1], "steady"] < 0.02 < 1 < wide.loc[MOMENTS[2], "steady"]  # nulls appear
    assert wide.loc[MOMENTS[2], "plan"] > 1  # a category never seen
