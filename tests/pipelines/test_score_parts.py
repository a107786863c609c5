"""Parts of a ranked list: every customer is in one of them, and together they are the list made at once."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from churn.cli import main
from churn.settings import Settings, load_settings
from core.errors import ServingError
from pipelines.score_parts import Part, merge_parts, metadata
from serving.offline.ranked import write_ranked

CUSTOMERS = 5_000
FACTS: dict[str, Any] = {"moment": "1998-07-01", "model_version": "a", "top": None}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(overrides=[f"workspace={tmp_path / 'var'}"])


@pytest.fixture
def batches() -> list[pa.RecordBatch]:
    """Customers in two batches, every tenth with the same expected value, some with none."""
    masks = [f"u_{hashlib.sha256(str(n).encode()).hexdigest()[:32]}" for n in range(CUSTOMERS)]
    values = np.where(np.arange(CUSTOMERS) % 10 == 0, 5.0, np.random.default_rng(0).normal(size=CUSTOMERS))
    worth = pa.array(values, mask=np.arange(CUSTOMERS) % 97 == 0)
    whole = pa.record_batch({"user_id": masks, "expected_value": worth})
    return [whole.slice(0, 1_234), whole.slice(1_234)]


def write_part(batches: list[pa.RecordBatch], part: Part, out: Path, **facts: Any) -> None:
    part.file(out).parent.mkdir(exist_ok=True)
    known = {**FACTS, **facts}
    chosen = [part.of_batch(batch) for batch in batches]
    write_ranked(chosen, part.file(out), known["top"], metadata=metadata(known), may_be_empty=True)


@pytest.mark.parametrize("number", [1, 3, 7, 6_000])
def test_every_customer_is_in_one_part_of_about_equal_size(
    batches: list[pa.RecordBatch], number: int
) -> None:
    parts = [Part(i, number) for i in range(min(number, 200))]
    found = [user for p in parts for batch in batches for user in p.of_batch(batch)["user_id"].to_pylist()]
    assert len(found) == len(set(found))
    if number <= 200:
        assert len(found) == CUSTOMERS
        sizes = [sum(p.of_batch(batch).num_rows for batch in batches) for p in parts]
        assert max(sizes) - min(sizes) < 6 * np.sqrt(CUSTOMERS / number)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("top", [None, 300])
def test_the_merged_list_has_the_bytes_of_the_list_made_at_once(
    batches: list[pa.RecordBatch], settings: Settings, tmp_path: Path, suffix: str, top: int | None
) -> None:
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"merged{suffix}"
    write_ranked(batches, whole, top)
    for i in (2, 0, 1, 2):  # in any order, and one of them twice
        write_part(batches[::-1], Part(i, 3), out, top=top)
    merged, _ = merge_parts(settings, out)
    assert out.read_bytes() == whole.read_bytes()
    assert merged.rows == (top or CUSTOMERS)


def test_a_part_without_customers_is_a_part(
    batches: list[pa.RecordBatch], settings: Settings, tmp_path: Path
) -> None:
    few, out = [batches[0].slice(0, 3)], tmp_path / "list.parquet"
    for i in range(16):
        write_part(few, Part(i, 16), out)
    assert merge_parts(settings, out)[0].rows == 3


def test_a_missing_part_is_named_with_its_command(
    batches: list[pa.RecordBatch], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "list.csv"
    for i in (0, 3):
        write_part(batches, Part(i, 4), out)
    assert main(["score", "--merge", "--out", str(out), "--set", f"workspace={tmp_path}"]) == 1
    shown = " ".join(capfd.readouterr().err.split())
    assert f"2 of 4 parts are missing (1, 2); run `churn score --part 1/4 --out {out}`" in shown
    assert not out.exists()


def test_parts_of_another_model_are_refused(
    batches: list[pa.RecordBatch], settings: Settings, tmp_path: Path
) -> None:
    out = tmp_path / "list.parquet"
    write_part(batches, Part(0, 2), out)
    write_part(batches, Part(1, 2), out, model_version="b")
    with pytest.raises(ServingError, match=r"parts 0/2 and 1/2 differ in model version \(a and b\)"):
        merge_parts(settings, out)


def test_parts_of_two_divisions_and_files_that_are_none_are_refused(
    batches: list[pa.RecordBatch], settings: Settings, tmp_path: Path
) -> None:
    out = tmp_path / "list.parquet"
    with pytest.raises(ServingError, match="has no parts"):
        merge_parts(settings, out)
    write_part(batches, Part(0, 2), out)
    write_part(batches, Part(0, 3), out)
    with pytest.raises(ServingError, match="parts of 2 and of 3; remove those of the earlier run"):
        merge_parts(settings, out)
    Part(0, 3).file(out).unlink()
    pq.write_table(pa.table({"user_id": ["a"]}), Part(1, 2).file(out))
    with pytest.raises(ServingError, match=r"1-of-2.parquet: .* run `churn score --part 1/2` again"):
        merge_parts(settings, out)


@pytest.mark.parametrize("text", ["4/4", "1", "-1/4", "a/b"])
def test_another_form_of_a_part_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["score", "--out", "list.csv", "--part", text])
    assert ended.value.code == 2
    if not text.startswith("-"):
        assert "is not I/N with I from 0 to N-1" in capsys.readouterr().err


@pytest.mark.parametrize("flag", [["--top", "5"], ["--as-of", "1998-07-01"], ["--part", "0/2"]])
def test_what_the_parts_were_made_with_is_not_given_again(
    flag: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["score", "--merge", "--out", str(tmp_path / "list.csv"), *flag]
    assert main([*words, "--set", f"workspace={tmp_path}"]) == 2
    assert f"{flag[0]}: leave it out with --merge" in capfd.readouterr().err
