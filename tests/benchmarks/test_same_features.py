"""The benchmark of feature building ends where its two sides differ."""

import math
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.features import measure
from benchmarks.same_features import Different, compare

TABLE = pd.DataFrame(
    {
        "user_id": ["a", "b"],
        "event_timestamp": pd.Timestamp("2023-07-01", tz="UTC"),
        "spend": [0.1 + 0.2, math.nan],
    }
)


def written(folder: Path, name: str, table: pd.DataFrame) -> Path:
    file = folder / name
    table.to_parquet(file)
    return file


def test_a_nan_is_a_null_and_the_last_bits_and_the_order_do_not_matter(tmp_path: Path) -> None:
    other = TABLE.assign(spend=[0.3, None]).iloc[::-1]
    files = written(tmp_path, "one", TABLE), written(tmp_path, "other", other)
    assert compare(*files, ["spend"]) == 2


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (TABLE.assign(spend=[0.31, math.nan]), "spend: .* for a at"),
        (TABLE.assign(spend=[0.3, 0.0]), "spend: .* for b at"),
        (TABLE.iloc[:1], "ours has 2 rows, the other 1"),
        (TABLE.assign(user_id=["a", "c"]), "and 1 are in both"),
    ],
)
def test_a_difference_is_an_error(tmp_path: Path, other: pd.DataFrame, says: str) -> None:
    files = written(tmp_path, "one", TABLE), written(tmp_path, "other", other)
    with pytest.raises(Different, match=says):
        compare(*files, ["spend"])


def test_both_sides_build_the_same_tables(tmp_path: Path) -> None:
    """`measure` compares them, and its clock begins after the imports."""
    duckdb, pandas = measure(7_000, tmp_path, 1)
    assert duckdb["snapshot_rows"] == pandas["snapshot_rows"] > 1000
