"""From the source to the files of a version: their contents, and that all of them are written or none."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from churn.settings import load_settings
from core.errors import DataError
from core.workspace import Workspace
from data.ingest import ingest
from data.prepare import parts as parts_module
from data.records.folder import parts, read
from data.source.sources import CDNOW_SHA256
from handlers.identity import mask
from support.data_tables import AS_OF, KEY, LOG, Configure, Ingest, cdnow

TELCO = Path(__file__).resolve().parents[3] / "shared" / "data" / "Telco-Customer-Churn.csv"
ROOT = Path(__file__).resolve().parents[2]


def written(files: Workspace) -> dict[str, bytes]:
    return {str(p.relative_to(files.data)): p.read_bytes() for p in files.data.rglob("*.*")}


def leftovers(files: Workspace) -> list[Path]:
    return [p for p in files.data.parent.glob("version-*") if p != files.data.resolve()]


def test_cdnow_with_the_shipped_config(files: Workspace) -> None:
    manifest = ingest(load_settings().data, files, AS_OF)
    assert manifest == json.loads(files.manifest.read_text())
    assert manifest["input_sha256"] == CDNOW_SHA256
    assert manifest["output_sha256"] == hashlib.sha256(parts(files)[0].read_bytes()).hexdigest()
    assert (manifest["rows"], manifest["rejected_rows"], manifest["customers"]) == (69_659, 0, 23_570)
    assert manifest["window"] == {"start": "1997-01-01T00:00:00+00:00", "end": "1998-07-01T00:00:00+00:00"}
    assert manifest["id_type"] == "integer" and manifest["masking"] == "hmac-sha256-128"
    assert manifest["source"] == {"kind": "cdnow", "uri": "Lifetimes/CDNOW_master.txt"}

    records = read(files.records)
    assert (
        {f.name: str(f.type) for f in records.schema}
        == manifest["schema"]
        == {
            "user_id": "string",
            "timestamp": "timestamp[us, tz=UTC]",
            "amount": "double",
            "quantity": "double",
            "is_return": "bool",
        }
    )
    second = records.filter(pc.equal(records["user_id"], mask("2", KEY.encode())))  # "00002" in the file
    assert second.drop_columns("user_id").to_pylist() == [
        {"timestamp": datetime(1997, 1, 12, tzinfo=UTC), "amount": amount, "quantity": n, "is_return": False}
        for amount, n in ((12.0, 1.0), (77.0, 5.0))
    ]
    frame = records.to_pandas()
    assert frame.equals(frame.sort_values(["user_id", "timestamp"], kind="stable"))
    suite = json.loads(files.validation.read_text())
    assert suite["success"] and all(outcome["success"] for outcome in suite["results"])


def test_equal_input_config_and_key_give_equal_bytes(tmp_path: Path) -> None:
    results = []
    for name in ("one", "two"):
        files = Workspace(tmp_path / name)
        ingest(cdnow(), files, AS_OF)
        results.append(written(files))
    assert results[0] == results[1]


def test_another_key_gives_other_identifiers(
    files: Workspace, run: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(cdnow())
    monkeypatch.setenv("CHURN_MASK_KEY", "another key, long enough to be taken")
    second = run(cdnow())
    assert second["customers"] == first["customers"]
    assert second["output_sha256"] != first["output_sha256"]


def test_a_csv_log(configure: Configure, run: Ingest, files: Workspace) -> None:
    manifest = run(configure(LOG, duplicates="keep"))
    assert manifest["customers"] == 2
    assert manifest["window"] == {"start": "2024-01-05T00:00:00+00:00", "end": "2024-03-01T00:00:00+00:00"}
    records = read(files.records)
    ann = records.filter(pc.equal(records["user_id"], mask("ann", KEY.encode())))
    assert ann["amount"].to_pylist() == [10.5, 7.25]


def test_csv_and_parquet_give_the_same_records(configure: Configure, run: Ingest, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    log = pd.DataFrame(
        {
            "customer": rng.integers(1, 500, 5000),
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 10**7, 5000), unit="s"),
            "paid": rng.gamma(2, 20, 5000).round(2),
        }
    )
    log.to_parquet(tmp_path / "log.parquet")
    from_csv = run(configure(log, user_id_type="integer"))
    from_parquet = run(configure(tmp_path / "log.parquet", kind="parquet", user_id_type="integer"))
    assert from_csv["output_sha256"] == from_parquet["output_sha256"]


def test_telco_with_the_shipped_example(files: Workspace) -> None:
    if not TELCO.is_file():
        pytest.skip("the Telco table is not beside this repository")
    settings = load_settings(
        overlays=[ROOT / "examples" / "telco.yaml"], overrides=[f"data.source.uri={TELCO}"]
    )
    columns = ("tenure", "MonthlyCharges", "TotalCharges", "Contract")
    manifest = ingest(settings.data, files, AS_OF, further=columns)
    assert (manifest["rows"], manifest["rejected_rows"], manifest["customers"]) == (7043, 0, 7043)
    records = read(files.records)
    assert records.column_names[:3] == ["user_id", "event_timestamp", "target"]
    assert records["TotalCharges"].null_count == 11
    assert sum(records["target"].to_pylist()) == 1869
    kinds = [manifest["schema"][name] for name in columns]
    assert kinds == ["int64", "double", "double", "string"]
    assert set(records["Contract"].to_pylist()) == {"Month-to-month", "One year", "Two year"}


def test_the_shipped_example_of_a_log(files: Workspace, tmp_path: Path) -> None:
    orders = tmp_path / "orders.csv"
    rows = (f"c{i % 300},2024-{i % 12 + 1:02d}-03T{i % 24:02d}:{i % 60:02d}:00,{i}.5" for i in range(1500))
    orders.write_text("customer_id,ordered_at,total\n" + "\n".join(rows))
    settings = load_settings(
        overlays=[ROOT / "examples" / "transactions.yaml"], overrides=[f"data.source.uri={orders}"]
    )
    assert ingest(settings.data, files, AS_OF)["rows"] == 1500


def test_a_failing_suite_leaves_the_old_files_byte_for_byte(
    configure: Configure, run: Ingest, files: Workspace
) -> None:
    run(configure(LOG))
    before = written(files)
    too_few = {"type": "expect_table_row_count_to_be_between", "min_value": 1000}
    negative = {"type": "expect_column_values_to_be_between", "column": "amount", "min_value": 5}
    with pytest.raises(DataError) as error:
        run(configure(LOG, expectations=[too_few, negative]))
    assert error.value.exit_code == 2
    message = str(error.value)
    assert (
        "\n" not in message
        and "2 of 4 expectations fail, first expect_table_row_count_to_be_between" in message
    )
    assert error.value.table == [
        {
            "expectation": "expect_table_row_count_to_be_between",
            "column": "",
            "expected": "min_value=1000",
            "found": "3",
        },
        {
            "expectation": "expect_column_values_to_be_between",
            "column": "amount",
            "expected": "min_value=5.0",
            "found": "1 of 3 values (33.3 %), such as 3.0",
        },
    ]
    assert written(files) == before
    assert leftovers(files) == []


def test_dates_in_the_future_fail_the_suite(configure: Configure, run: Ingest, files: Workspace) -> None:
    with pytest.raises(DataError, match=r"expect_column_values_to_be_between \(timestamp\): 1 of 3 values"):
        run(configure(LOG), as_of=datetime(2024, 2, 10, tzinfo=UTC))
    assert not files.data.exists()


def test_a_failing_disk_leaves_the_old_files(
    configure: Configure, run: Ingest, files: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(configure(LOG))
    before = written(files)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parts_module, "write_part", full)
    with pytest.raises(OSError, match="No space left"):
        run(cdnow())
    assert written(files) == before
    assert leftovers(files) == []


KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from data import ingest as module
from data.config import DataConfig
from data.ingest import ingest
from core.workspace import Workspace

module.write_json = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # the records are written already
config = DataConfig(shape="transactions", source={"kind": "cdnow"}, expectations=())
ingest(config, Workspace(Path(sys.argv[1])), datetime(2026, 1, 1, tzinfo=UTC))
"""


def test_a_killed_run_changes_nothing_and_the_next_one_cleans_up(
    configure: Configure, run: Ingest, files: Workspace
) -> None:
    run(configure(LOG))
    before = written(files)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(files.root)], env=dict(os.environ), cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert written(files) == before
    assert [p.name for folder in leftovers(files) for p in folder.glob("records/*")] == ["base-00000.parquet"]
    (files.data.parent / "version-old.link").symlink_to("version-gone")  # killed between link and rename
    run(cdnow())
    assert leftovers(files) == []
    assert read(files.records).num_rows == 69_659


def test_a_second_ingest_while_one_is_running_is_refused(
    configure: Configure, run: Ingest, files: Workspace
) -> None:
    run(configure(LOG))
    before = written(files)
    with FileLock(files.data.parent / ".lock"), pytest.raises(DataError, match="another ingest is writing"):
        run(cdnow())
    assert written(files) == before
    run(cdnow())


def test_progress_messages_contain_no_identifiers(configure: Configure, files: Workspace) -> None:
    messages: list[str] = []
    ingest(configure(LOG), files, AS_OF, messages.append)
    assert [line.split()[0] for line in messages] == ["reading", "cleaning:", "sorting:", "validating"]
    assert not any("ann" in line or "bob" in line for line in messages)


@pytest.mark.slow
def test_millions_of_rows_need_only_a_few_gigabytes(tmp_path: Path) -> None:
    """7 million purchases of a million customers."""
    rng = np.random.default_rng(0)
    rows = 7_000_000
    seconds = rng.integers(0, 10**8, rows).astype("timedelta64[s]")
    log = {
        "customer": rng.integers(1, 1_000_001, rows),
        "when": np.datetime64("2020-01-01T00:00:00") + seconds,
        "paid": rng.gamma(2, 20, rows).round(2),
    }
    pq.write_table(pa.table(log), tmp_path / "log.parquet")
    script = (
        "import resource, sys; from datetime import UTC, datetime; from pathlib import Path\n"
        "from data.config import DataConfig; from data.ingest import ingest\n"
        "from core.workspace import Workspace\n"
        "columns = {'user_id': 'customer', 'timestamp': 'when', 'amount': 'paid'}\n"
        "source = {'kind': 'parquet', 'uri': sys.argv[1] + '/log.parquet', 'columns': columns}\n"
        "config = DataConfig(shape='transactions', source=source, expectations=())\n"
        "ingest(config, Workspace(Path(sys.argv[1])), datetime(2026, 1, 1, tzinfo=UTC))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    child = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert int(child.stdout) < 3.5 * 2**20  # KiB
