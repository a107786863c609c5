"""Any source and any spec: returns, further columns, texts, computed amounts, and a source without ids."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.workspace import Workspace
from data.config import DataConfig
from data.ingest import ingest
from data.mask import load_key
from features.build import build_features
from features.spec import FeaturesConfig, columns_read
from stream.aggregates import Aggregates
from stream.errors import StreamError
from stream.history import load_records
from stream.purchases import PurchaseReader
from stream.state import State
from stream.work import Work
from support.stream_workspace import END

HISTORY = [
    ("ann", "01.02.2025 10:00", "10,50", "2", "web", "R1"),
    ("ann", "03.02.2025 09:00", "-5,25", "1", "web", "R2"),
    ("bob", "04.02.2025 09:00", "3,00", "1", "", "R3"),
    ("bob", "04.02.2025 09:00", "3,00", "1", "", "R4"),
]
TOPIC = [
    ("ann", "02.07.2025 10:00", 7.5, 3, "shop", "R5"),
    ("cleo", "02.07.2025 11:00", 1.25, 1, None, "R6"),
    ("bob", "02.07.2025 12:00", "-3,00", 1, "shop", "R7"),
    ("bob", "15.01.2025 12:00", "2,00", "4", "fair", "R8"),
]
NAMES = ("who", "at", "price", "pieces", "channel", "receipt")
SPEC = FeaturesConfig.model_validate({
    "features": [
        {"name": "purchases", "dtype": "int64", "default": 0, "sql": "count(*)"},
        {"name": "returned", "dtype": "int64", "default": 0, "sql": "count(*)", "over": "returns"},
        {"name": "net", "dtype": "float64", "sql": "sum(amount)", "over": "all"},
        {"name": "recency_days", "dtype": "float64", "sql": "min(age_days)"},
        {"name": "last_channel", "dtype": "string", "sql": "arg_max(channel, timestamp)"},
        {"name": "pieces", "dtype": "float64", "sql": "sum(quantity)"},
        {"name": "gap", "dtype": "float64", "sql": "max(gap_days)"},
    ],
    "snapshots": {"every": "week"},
})  # fmt: skip


def config(file: Path, rows: list[tuple[Any, ...]], *, with_ids: bool = True) -> DataConfig:
    lines = [";".join(NAMES), *(";".join("" if one is None else str(one) for one in row) for row in rows)]
    file.write_text("\n".join(lines) + "\n")
    columns = {"user_id": "who", "timestamp": "at", "quantity": "pieces"}
    ids = {"transaction_id": "receipt"} if with_ids else {}
    source = {
        "kind": "csv", "uri": str(file), "columns": columns | ids,
        "computed": {"amount": "price * pieces"}, "dates": "%d.%m.%Y %H:%M", "timezone": "Europe/Berlin",
        "options": {"sep": ";", "decimal": ","}, "types": {"channel": "string"}, "duplicates": "keep",
    }  # fmt: skip
    return DataConfig.model_validate({"shape": "transactions", "source": source, "expectations": []})


def message(row: tuple[Any, ...]) -> bytes:
    return json.dumps(dict(zip(NAMES, row, strict=True))).encode()


def built(data: DataConfig, files: Workspace, key: str, **options: Any) -> pa.Table:
    files.mask_key.parent.mkdir(parents=True, exist_ok=True)
    files.mask_key.write_text(key)
    files.mask_key.chmod(0o600)
    ingest(data, files, END + timedelta(days=30), further=columns_read(SPEC))
    build_features(
        SPEC, files, [END + timedelta(days=9)], labels=False, until=END + timedelta(days=30), **options
    )
    return pq.read_table(files.snapshots)


def written(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The row as the source's file has it."""
    return tuple(str(one).replace(".", ",") if isinstance(one, float) else one for one in row)


def test_columns_of_any_source_become_the_same_vectors(tmp_path: Path) -> None:
    data, files = config(tmp_path / "history.csv", HISTORY), Workspace(tmp_path / "var")
    built(data, files, "k" * 40)
    reader = PurchaseReader(data, columns_read(SPEC), None, files, load_key(data, files))
    state = State(f"sqlite:///{tmp_path}/state.db", reader.further)
    assert load_records(data, files, state, reader.further) == 4
    assert load_records(data, files, state, reader.further) == 0
    pushed: list[pa.Table] = []
    at = END + timedelta(days=9)
    work = Work(reader, state, Aggregates(SPEC, reader.further), pushed.append, lambda: at, 60.0)
    outcome = work.apply([message(row) for row in TOPIC])
    assert (outcome.new, outcome.refused) == (4, {})
    state.close()
    expected = built(
        config(tmp_path / "all.csv", [*HISTORY, *map(written, TOPIC)]), Workspace(tmp_path / "all"), "k" * 40
    )
    assert pushed[0].num_rows == 3
    assert pushed[0].sort_by("user_id").to_pylist() == expected.sort_by("user_id").to_pylist()


def test_a_source_without_ids_needs_a_field_that_identifies_a_purchase(tmp_path: Path) -> None:
    data, files = config(tmp_path / "log.csv", HISTORY, with_ids=False), Workspace(tmp_path / "var")
    built(data, files, "k" * 40)
    key = load_key(data, files)
    with pytest.raises(StreamError, match=r"stream.identity: name the field .* counts twice"):
        PurchaseReader(data, columns_read(SPEC), None, files, key)
    reader = PurchaseReader(data, columns_read(SPEC), "receipt", files, key)
    state = State(f"sqlite:///{tmp_path}/state.db", reader.further)
    assert load_records(data, files, state, reader.further) == 4  # bob's equal rows are two purchases
    work = Work(reader, state, Aggregates(SPEC, reader.further), lambda _: None, lambda: END, 1e9)
    outcome = work.apply([message(TOPIC[0]), message(TOPIC[0]), message((*TOPIC[1][:5], None))])
    assert (outcome.new, outcome.repeated, list(outcome.refused.values())) == (1, 1, ["receipt is missing"])
    state.close()


def test_records_of_another_mapping_or_a_state_with_other_columns_are_refused(tmp_path: Path) -> None:
    data, files = config(tmp_path / "log.csv", HISTORY), Workspace(tmp_path / "var")
    built(data, files, "k" * 40)
    key = load_key(data, files)
    other = config(tmp_path / "log.csv", HISTORY, with_ids=False)
    with pytest.raises(StreamError, match=r"other settings of data\.source"):
        PurchaseReader(other, columns_read(SPEC), "receipt", files, key)
    uri = f"sqlite:///{tmp_path}/state.db"
    State(uri, {"channel": pa.string()}).close()
    with pytest.raises(StreamError, match="made for other columns"):
        State(uri, {})
    with pytest.raises(StreamError, match=r"stream\.state at mysql://me:\*\*\*@host/db: use sqlite"):
        State("mysql://me:secret@host/db", {})
