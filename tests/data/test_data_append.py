"""Deliveries: what is new, repeated, changed, late; versions of the data by their hash."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from core.errors import DataError
from core.workspace import Workspace
from data import append as append_module
from data.append import append
from data.config import DataConfig
from data.delivery import Delivery
from data.ingest import ingest
from data.prepare import parts as parts_module
from data.prepare import staging
from data.records.folder import parts, read
from data.records.versions import find, versions
from handlers.identity import mask
from support.data_tables import AS_OF, KEY, Configure, Ingest

ROOT = Path(__file__).resolve().parents[2]
BASE = "customer,when,paid\nann,2024-01-05,10\nbob,2024-02-01,3\nann,2024-03-01,7\n"
BY_ID = {"user_id": "customer", "timestamp": "when", "amount": "paid", "transaction_id": "order"}


def delivered(tmp_path: Path, content: str | pd.DataFrame, name: str = "delivery.csv") -> str:
    path = tmp_path / name
    text = content if isinstance(content, str) else content.to_csv(index=False)
    path.write_text(text, encoding="utf-8")
    return str(path)


def counts(delivery: Delivery) -> tuple[int, int, int, int]:
    return delivery.new, delivery.repeated, delivery.changed, delivery.late


def test_new_repeated_and_late_rows(
    configure: Configure, run: Ingest, files: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_module, "COMPACT_SHARE", 0.9)
    config = configure(BASE)
    run(config)
    base = parts(files)[0]
    inode = base.stat().st_ino
    uri = delivered(
        tmp_path,
        "customer,when,paid\nbob,2024-04-01,5\nann,2024-01-05,10\ncid,2024-02-15,1\nbob,2024-02-01,4\n",
    )
    done = append(config, files, uri, AS_OF)
    assert counts(done) == (3, 1, 0, 2) and done.rows == 4
    assert parts(files)[0].stat().st_ino == inode  # linked, not written again
    assert [p.name.split("-")[0] for p in parts(files)] == ["base", "delivery"]
    manifest = json.loads(files.manifest.read_text())
    assert (manifest["rows"], manifest["customers"]) == (6, 3)
    assert manifest["window"]["end"] == "2024-04-02T00:00:00+00:00"
    assert manifest["newest"] == "2024-04-01T00:00:00+00:00"
    assert manifest["deliveries"][0]["new"] == 3
    found = read(files.records).to_pandas()
    bob = found[found["user_id"] == mask("bob", KEY.encode())]
    assert bob["amount"].tolist() == [3.0, 4.0, 5.0]


def test_the_same_delivery_again_changes_nothing(
    configure: Configure, run: Ingest, files: Workspace, tmp_path: Path
) -> None:
    config = configure(BASE)
    run(config)
    uri = delivered(tmp_path, "customer,when,paid\nbob,2024-04-01,5\n")
    append(config, files, uri, AS_OF)
    before = (files.data.resolve(), files.manifest.read_bytes())
    again = append(config, files, uri, AS_OF)
    assert again.known
    assert append(config, files, str(tmp_path / "table.csv"), AS_OF).known  # the base itself
    assert (files.data.resolve(), files.manifest.read_bytes()) == before
    assert not list(files.data.parent.glob("version-*"))


def test_a_changed_transaction_replaces_the_old_row(
    configure: Configure, run: Ingest, files: Workspace, tmp_path: Path
) -> None:
    config = configure(
        "customer,when,paid,order\na,2024-01-05,10,1\na,2024-01-06,20,2\nb,2024-01-07,30,3\n", columns=BY_ID
    )
    run(config)
    uri = delivered(
        tmp_path, "customer,when,paid,order\na,2024-01-06,25,2\nb,2024-01-07,30,3\na,2024-02-01,40,4\n"
    )
    assert counts(append(config, files, uri, AS_OF)) == (1, 1, 1, 1)
    assert sorted(read(files.records)["amount"].to_pylist()) == [10.0, 25.0, 30.0, 40.0]
    uri = delivered(tmp_path, "customer,when,paid,order\na,2024-01-06,26,2\na,2024-02-01,40,4\n", "third.csv")
    assert counts(append(config, files, uri, AS_OF)) == (0, 1, 1, 1)
    assert sorted(read(files.records)["amount"].to_pylist()) == [10.0, 26.0, 30.0, 40.0]


def test_a_delivered_order_replaces_the_stored_one(
    configure: Configure, run: Ingest, files: Workspace, tmp_path: Path
) -> None:
    columns = {"user_id": "customer", "timestamp": "when", "amount": "paid", "order_id": "order"}
    header = "customer,when,paid,order\n"
    config = configure(
        header + "a,2024-01-05,10,1\na,2024-01-05,5,1\na,2024-01-06,1,2\n",
        columns=columns,
        group_by="order_id",
    )
    run(config)
    uri = delivered(tmp_path, header + "a,2024-01-05,10,1\na,2024-01-05,6,1\na,2024-01-06,1,2\n")
    assert counts(append(config, files, uri, AS_OF)) == (0, 1, 1, 1)
    assert read(files.records)["amount"].to_pylist() == [16.0, 1.0]


def test_a_labelled_panel_grows_by_a_month(
    configure: Configure, run: Ingest, files: Workspace, tmp_path: Path
) -> None:
    columns = {"user_id": "customer", "target": "churned", "event_timestamp": "month"}
    table = "customer,month,churned,bill\na,2024-01-01,0,1\nb,2024-01-01,1,2\n"
    config = configure(table, "labelled", columns=columns)
    ingest(config, files, AS_OF, further=("bill",))
    uri = delivered(tmp_path, "customer,month,churned,bill\na,2024-02-01,0,3\nb,2024-01-01,0,2\n")
    assert counts(append(config, files, uri, AS_OF, further=("bill",))) == (1, 0, 1, 0)
    found = read(files.records).to_pandas()
    assert sorted(zip(found["target"], found["bill"], strict=True)) == [(0, 1), (0, 2), (0, 3)]
    uri = delivered(tmp_path, "customer,month,churned,bill\na,2024-03-01,perhaps,3\n", "third.csv")
    with pytest.raises(DataError, match=r"has 2 values that do not mean churned: '0\.0', 'perhaps'"):
        append(config, files, uri, AS_OF, further=("bill",))


def reference(batches: list[pd.DataFrame]) -> pd.DataFrame:
    """In plain pandas: a row of a known id replaces it."""
    known = batches[0]
    for number, batch in enumerate(batches[1:], 1):
        if any(batch.equals(before) for before in batches[:number]):
            continue  # the same file again changes nothing
        with_id = batch["order"] != ""
        known = known[~(known["order"].isin(batch.loc[with_id, "order"]) & (known["order"] != ""))]
        known = pd.concat([known, batch])
    users = [mask(customer, KEY.encode()) for customer in known["customer"]]
    return known.assign(user_id=users)[["user_id", "when", "paid"]]


ROWS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(1, 9), st.integers(1, 4), st.integers(0, 12)),
    min_size=1,
    max_size=15,
    unique_by=lambda row: row[3],
)


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(batches=st.lists(ROWS, min_size=2, max_size=4), share=st.sampled_from([0.0, 0.2, 9.0]))
def test_deliveries_give_the_same_rows_as_pandas(
    batches: list[list[tuple[str, int, int, int]]],
    share: float,
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It does not matter which parts were linked, rewritten or compacted."""
    frames = []
    for rows in batches:
        frame = pd.DataFrame(rows, columns=["customer", "day", "paid", "order"])
        frame["when"] = "2024-01-0" + frame.pop("day").astype(str)
        frames.append(frame.astype({"order": str}))
    files = Workspace(tmp_path / f"var{np.random.default_rng().integers(1 << 60)}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(append_module, "COMPACT_SHARE", share)
        patch.setattr(staging, "BYTES_IN_MEMORY", 0)
        patch.setattr(parts_module, "ROWS_A_PART", 3)
        config = configure(frames[0], columns=BY_ID)
        ingest(config, files, AS_OF)
        for number, frame in enumerate(frames[1:]):
            append(config, files, delivered(tmp_path, frame, f"{number}.csv"), AS_OF)
    found = read(files.records).to_pandas()
    expected = reference(frames)
    days = found["timestamp"].dt.strftime("%Y-%m-%d")
    rows = zip(found["user_id"], days, found["amount"], strict=True)
    assert sorted(rows) == sorted(expected.itertuples(index=False, name=None))
    assert found.equals(found.sort_values(["user_id", "timestamp"], kind="stable", ignore_index=True))
    manifest = json.loads(files.manifest.read_text())
    assert manifest["rows"] == len(found) and manifest["customers"] == found["user_id"].nunique()
    assert sum(part["rows"] for part in manifest["parts"]) == len(found)
    for part, path in zip(manifest["parts"], parts(files), strict=True):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == part["sha256"]
    if share == 0.0:
        assert all(path.name.startswith("base") for path in parts(files))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("customer,when,paid\nbob,never,5\n", "1 of 1 rows cannot be used"),
        ("customer,when,paid\nbob,2027-04-01,5\n", "expectations fail"),
        ("client,when,paid\nbob,2024-04-01,5\n", "no column 'customer'"),
        ("customer,when,paid\nbob,2024-04-01,5\nbob,2024-04-01,5\n", "equal a row above"),
    ],
)
def test_a_delivery_that_cannot_be_used_changes_nothing(
    content: str, complaint: str, configure: Configure, run: Ingest, files: Workspace, tmp_path: Path
) -> None:
    config = configure(BASE)
    run(config)
    before = files.data.resolve()
    with pytest.raises(DataError, match=complaint):
        append(config, files, delivered(tmp_path, content), AS_OF)
    assert files.data.resolve() == before
    assert [p.name for p in files.data.parent.iterdir() if p.name.startswith("version-")] == []


def test_another_mapping_or_key_is_refused(
    configure: Configure, run: Ingest, files: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = delivered(tmp_path, "customer,when,paid\nbob,2024-04-01,5\n")
    with pytest.raises(DataError, match="run `churn ingest` first"):
        append(configure(BASE), files, uri, AS_OF)
    run(configure(BASE))
    with pytest.raises(DataError, match=r"other settings of data\.source"):
        append(configure(BASE, returns=None), files, uri, AS_OF)
    monkeypatch.setenv("CHURN_MASK_KEY", "another key, long enough to be taken")
    with pytest.raises(DataError, match="masked with another key"):
        append(configure(BASE), files, uri, AS_OF)


def test_the_row_count_is_checked_on_all_rows(
    configure: Configure, run: Ingest, files: Workspace, tmp_path: Path
) -> None:
    config = configure(BASE, expectations=[{"type": "expect_table_row_count_to_be_between", "min_value": 3}])
    run(config)
    uri = delivered(tmp_path, "customer,when,paid\nbob,2024-04-01,5\n")
    assert append(config, files, uri, AS_OF).new == 1


def test_an_old_manifest_hash_finds_its_data(configure: Configure, run: Ingest, files: Workspace) -> None:
    hashes = []
    for paid in range(4):
        run(configure(f"customer,when,paid\na,2024-01-05,{paid}\n"))
        hashes.append(hashlib.sha256(files.manifest.read_bytes()).hexdigest())
        os.utime(files.data.resolve(), (paid, paid))
    assert [v.sha256 for v in versions(files)] == hashes[:0:-1]  # keep_versions is 3
    assert versions(files)[0].current
    assert read(find(files, hashes[1]) / "records")["amount"].to_pylist() == [1.0]
    assert find(files, hashes[2][:12]) == find(files, hashes[2])
    with pytest.raises(DataError, match=r"not there.*keep_versions"):
        find(files, hashes[0])


def test_an_old_version_becomes_current_again(configure: Configure, run: Ingest, files: Workspace) -> None:
    first, second = configure(BASE), None
    run(first)
    folder = files.data.resolve()
    other = files.root.parent / "other.csv"
    other.write_text("customer,when,paid\na,2024-01-05,1\n")
    second = configure(other)
    run(second)
    assert files.data.resolve() != folder
    run(first)
    assert files.data.resolve() == folder and len(versions(files)) == 2


def test_a_damaged_version_is_written_again(configure: Configure, run: Ingest, files: Workspace) -> None:
    run(configure(BASE))
    damaged = files.data.resolve()
    parts(files)[0].unlink()
    run(configure(BASE))
    assert read(files.records).num_rows == 3
    assert files.data.resolve() != damaged


KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from data import append as module
from core import workspace
from data.records import versions
from data.config import DataConfig
from core.workspace import Workspace

place, function = sys.argv[3].split(".")
target = {"append": module, "versions": versions, "merge": module.merge}[place]
setattr(target, function, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
config = DataConfig.model_validate_json(sys.argv[4])
module.append(config, Workspace(Path(sys.argv[1])), sys.argv[2], datetime(2026, 1, 1, tzinfo=UTC))
"""


@pytest.mark.parametrize(
    "where", ["append.read_delivery", "merge.link_part", "append.write_json", "versions.point_to"]
)
def test_a_kill_leaves_the_old_version(
    where: str, configure: Configure, run: Ingest, files: Workspace, tmp_path: Path
) -> None:
    config: DataConfig = configure(BASE)
    run(config)
    before = {str(p): p.read_bytes() for p in files.data.resolve().rglob("*.*")}
    uri = delivered(tmp_path, "customer,when,paid\nbob,2024-04-01,5\n")
    arguments = [str(files.root), uri, where, config.model_dump_json()]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL
    assert {str(p): p.read_bytes() for p in files.data.resolve().rglob("*.*")} == before
    assert append(config, files, uri, AS_OF).new == 1
    assert not list(files.data.parent.glob("version-*"))
    assert read(files.records).num_rows == 4
