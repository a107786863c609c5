"""Identifiers are masked with a private key, and no raw identifier is written."""

import logging
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import DataError
from core.workspace import Workspace
from data import mask as data_mask
from data.mask import Masker, load_key, mask_texts, masks_as_text
from data.prepare import staging
from data.prepare.staging import Buckets
from data.records.folder import read
from handlers.identity import canonical_id, is_masked, mask
from support.data_tables import KEY, Configure, Ingest, cdnow

CONFIG = cdnow()


@pytest.fixture
def keyless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHURN_MASK_KEY")


def test_the_key_is_read_from_the_environment(files: Workspace) -> None:
    assert load_key(CONFIG, files) == KEY.encode()
    assert not files.mask_key.exists()


def test_the_variable_is_named_by_the_config(files: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEY", "s" * 32)
    assert load_key(cdnow(mask_key_env="SHOP_KEY"), files) == b"s" * 32


@pytest.mark.usefixtures("keyless")
def test_a_key_is_generated_once_and_readable_by_its_owner_only(files: Workspace) -> None:
    key = load_key(CONFIG, files)
    assert len(key) == 64
    assert load_key(CONFIG, files) == key
    assert files.mask_key.read_text().strip().encode() == key
    assert stat.S_IMODE(files.mask_key.stat().st_mode) == 0o600
    assert stat.S_IMODE(files.mask_key.parent.stat().st_mode) == 0o700
    assert [p.name for p in files.mask_key.parent.iterdir()] == ["mask.key"]


@pytest.mark.usefixtures("keyless")
def test_two_workspaces_do_not_share_a_key(tmp_path: Path) -> None:
    assert load_key(CONFIG, Workspace(tmp_path / "a")) != load_key(CONFIG, Workspace(tmp_path / "b"))


@pytest.mark.usefixtures("keyless")
def test_commands_that_start_together_use_the_same_key(
    files: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = Barrier(8)
    generate = data_mask._generate

    def all_at_once(path: Path) -> None:
        together.wait()
        generate(path)

    monkeypatch.setattr(data_mask, "_generate", all_at_once)
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: load_key(CONFIG, files), range(8)))
    assert len(keys) == 1
    assert [p.name for p in files.mask_key.parent.iterdir()] == ["mask.key"]


@pytest.mark.usefixtures("keyless")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602])
def test_a_key_file_that_others_may_read_is_refused(files: Workspace, mode: int) -> None:
    key = load_key(CONFIG, files)
    files.mask_key.chmod(mode)
    with pytest.raises(DataError, match=f"mode {mode:o}.*chmod 600") as error:
        load_key(CONFIG, files)
    assert key.decode() not in str(error.value)


@pytest.mark.usefixtures("keyless")
@pytest.mark.parametrize("content", ["", "\n", "too short"])
def test_an_empty_or_short_key_file_is_refused(files: Workspace, content: str) -> None:
    load_key(CONFIG, files)
    files.mask_key.write_text(content)
    with pytest.raises(DataError, match="fewer than 32"):
        load_key(CONFIG, files)


@pytest.mark.parametrize("content", ["", "  ", "k" * 31])
def test_an_empty_or_short_variable_is_refused(
    files: Workspace, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setenv("CHURN_MASK_KEY", content)
    with pytest.raises(DataError, match=r"CHURN_MASK_KEY.*fewer than 32") as error:
        load_key(CONFIG, files)
    assert "kkk" not in str(error.value)


def test_data_and_server_give_equal_masks_and_mask_each_customer_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []

    def counted(canonical: str, key: bytes) -> str:
        calls.append(canonical)
        return mask(canonical, key)

    monkeypatch.setattr(data_mask, "mask", counted)
    masker = Masker("integer", KEY.encode())
    expected = {i: mask(canonical_id(i, "integer"), KEY.encode()) for i in (1, 3)}
    for chunk in ([3, 1, 3], [3, 1]):
        masked = masks_as_text(*masker.halves(pa.chunked_array([chunk])))
        assert masked.to_pylist() == [expected[i] for i in chunk]
    assert sorted(calls) == ["1", "3"]
    texts = pa.chunked_array([["1", "x", None, "3.0"]])
    assert mask_texts(texts, "integer", KEY.encode()).to_pylist() == [expected[1], None, None, expected[3]]


def test_masks_have_the_same_order_as_numbers_and_as_texts() -> None:
    high, low = Masker("string", KEY.encode()).halves(pa.chunked_array([[f"c{i}" for i in range(500)]]))
    texts = masks_as_text(high, low).to_pylist()
    assert [texts[i] for i in np.lexsort((low, high))] == sorted(texts)


def test_no_raw_identifier_and_no_key_is_left_anywhere(
    configure: Configure,
    run: Ingest,
    files: Workspace,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    staged: list[bytes] = []

    def looked_at(buckets: Buckets) -> Iterator[pa.Table]:
        staged.extend(p.read_bytes() for p in files.root.rglob("*.arrow"))
        return ranges(buckets)

    ranges = Buckets.ranges
    monkeypatch.setattr(Buckets, "ranges", looked_at)
    monkeypatch.setattr(staging, "BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(staging, "COMPRESSION", None)
    log = (
        "customer,when,paid,order\n70000000001,2024-01-05,1,ord-900001\n70000000002,2024-01-05,1,ord-900002\n"
        "70000000003,never,1,ord-900003\nalice@shop,2024-01-05,1,ord-900004\n"
        "70000000001,2024-01-05,1,ord-900001\n"
    )
    columns = {"user_id": "customer", "timestamp": "when", "amount": "paid", "transaction_id": "order"}
    run(
        configure(log, columns=columns, user_id_type="integer", duplicates="drop", max_rejected_share=0.5),
    )
    rejected = pq.read_table(files.rejected).to_pylist()
    ids = {r["row"]: r["customer"] for r in rejected}
    assert ids == {
        3: mask("70000000003", KEY.encode()),
        4: None,  # not an integer: it cannot be masked as one
        5: mask("70000000001", KEY.encode()),
    }
    assert all(is_masked(r["order"]) for r in rejected if r["reason"] != "duplicate")
    assert all(map(is_masked, read(files.records)["user_id"].to_pylist()))
    assert len(staged) > 1
    written = [p.read_bytes() for p in files.root.rglob("*") if p.is_file()] + [caplog.text.encode(), *staged]
    for secret in (b"70000000", b"alice", b"ord-9000", KEY.encode()):
        assert not any(secret in content for content in written)


@pytest.mark.parametrize("name", ["row", "reason"])
def test_an_identifier_column_with_the_name_row_or_reason_is_masked(
    name: str, configure: Configure, run: Ingest, files: Workspace
) -> None:
    columns = {"user_id": name, "timestamp": "when", "amount": "paid"}
    log = f"{name},when,paid\nalice@shop,never,1\nbob@shop,2024-01-05,1\n"
    run(configure(log, columns=columns, max_rejected_share=0.5))
    (rejected,) = pq.read_table(files.rejected).to_pylist()
    assert rejected[f"{name} (source)"] == mask("alice@shop", KEY.encode())
    assert rejected["row"] == 1 and rejected["reason"].startswith("timestamp")


def test_undeclared_columns_are_not_written(configure: Configure, run: Ingest, files: Workspace) -> None:
    table = "customer,churned,Surname,bill\na,1,Hargrave,1\nb,0,Hill,2\nc,,Onio,3\n"
    run(configure(table, "labelled", keep=["bill"], max_rejected_share=0.5))
    assert read(files.records).column_names == ["user_id", "event_timestamp", "target", "bill"]
    assert pq.read_schema(files.rejected).names == ["customer", "churned", "bill", "row", "reason"]
