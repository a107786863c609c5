"""The ranked list: in order, complete, and written atomically."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from core.errors import ConfigError, ServingError
from serving.offline.ranked import check_target, write_ranked


def batches(values: list[float | None], ids: list[str] | None = None) -> list[pa.RecordBatch]:
    """Batches of two rows."""
    names = ids or [f"u_{number}" for number in range(len(values))]
    whole = pa.record_batch({"user_id": names, "expected_value": pa.array(values, pa.float64())})
    return [whole.slice(start, 2) for start in range(0, len(values), 2)]


def test_order_by_expected_value_then_name_with_nulls_last(tmp_path: Path) -> None:
    out = tmp_path / "list.parquet"
    done = write_ranked(batches([1.0, None, 3.0, 2.0, 3.0], ["e", "a", "d", "c", "b"]), out)

    found = pd.read_parquet(out)
    assert found["user_id"].tolist() == ["b", "d", "c", "e", "a"]
    assert found["rank"].tolist() == [1, 2, 3, 4, 5]
    assert (done.rows, done.scored) == (5, 5)
    assert [file.name for file in tmp_path.iterdir()] == ["list.parquet"]


def test_top_limits_the_rows(tmp_path: Path) -> None:
    out = tmp_path / "list.csv"
    done = write_ranked(batches([1.0, 5.0, 3.0]), out, top=2)

    assert (done.rows, done.scored) == (2, 3)
    assert pd.read_csv(out)["expected_value"].tolist() == [5.0, 3.0]


def test_more_than_fits_into_memory_is_sorted_on_disk(tmp_path: Path) -> None:
    random = np.random.default_rng(0)

    def many() -> Iterator[pa.RecordBatch]:
        for start in range(0, 1_500_000, 100_000):
            names = np.char.add("u_", np.char.zfill(np.arange(start, start + 100_000).astype(str), 32))
            yield pa.record_batch({"user_id": names.astype(object), "expected_value": random.random(100_000)})

    out = tmp_path / "list.parquet"
    done = write_ranked(many(), out, memory_limit="48MB")  # the rows alone are 80 MB

    found = pd.read_parquet(out)
    assert done.rows == len(found) == found["user_id"].nunique() == 1_500_000
    assert found["expected_value"].is_monotonic_decreasing


def test_an_error_leaves_the_old_list(tmp_path: Path) -> None:
    out = tmp_path / "list.parquet"
    write_ranked(batches([1.0]), out)
    before = out.read_bytes()

    def broken() -> Iterator[pa.RecordBatch]:
        yield from batches([2.0])
        raise ServingError("the disk is full")

    with pytest.raises(ServingError, match="full"):
        write_ranked(broken(), out)
    assert out.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["list.parquet"]


def test_an_empty_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="no customer"):
        write_ranked([], tmp_path / "list.parquet")


@pytest.mark.parametrize("name", ["list.xlsx", "list", "missing/list.csv"])
def test_a_target_that_cannot_be_written_is_refused_first(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="--out"):
        check_target(tmp_path / name)
