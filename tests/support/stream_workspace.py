"""A workspace with records, snapshots and an online store, and purchases as messages of a topic."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from core.workspace import Workspace
from data.config import DataConfig
from data.ingest import ingest
from data.mask import load_key
from features.build import build_features
from features.spec import FeaturesConfig, columns_read
from features.store import materialize, open_store
from stream.aggregates import Aggregates
from stream.history import load_records
from stream.online import Online
from stream.purchases import PurchaseReader
from stream.state import State
from stream.work import Work

FEATURES = Path(__file__).resolve().parents[2] / "configs" / "features.yaml"
START = datetime(2025, 1, 1, tzinfo=UTC)
END = datetime(2025, 7, 1, tzinfo=UTC)
"""The history of the records; purchases of the topic come afterwards."""
COLUMNS = ("buyer", "when", "paid", "items", "receipt")
Row = tuple[int, str, float, float, str]


@dataclass(frozen=True)
class Shop:
    """A workspace, its settings, and the rows of its source."""

    data: DataConfig
    spec: FeaturesConfig
    files: Workspace
    history: Sequence[Row]

    @property
    def key(self) -> bytes:
        return load_key(self.data, self.files)

    def reader(self) -> PurchaseReader:
        return PurchaseReader(self.data, columns_read(self.spec), None, self.files, self.key)

    def work(self, state: State, clock: Callable[[], datetime], push: Any = None) -> Work[Any]:
        reader = self.reader()
        push = push or Online(self.spec, self.files).push
        return Work(reader, state, Aggregates(self.spec, reader.further), push, clock, 60.0)

    def state(self, uri: str | None = None, *, loaded: bool = True) -> State:
        further = self.reader().further
        state = State(uri or f"sqlite:///{self.files.root}/stream.db", further)
        if loaded:
            load_records(self.data, self.files, state, further)
        return state


def shop(root: Path, customers: int = 20, online: Mapping[str, Any] | None = None, seed: int = 0) -> Shop:
    """Half a year of purchases by `customers`, ingested, built and materialized as of END."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    history = purchases(rng, customers, 8 * customers, START, END, "h")
    files, data = Workspace(root / "var"), data_config(root / "history.csv", history)
    content = yaml.safe_load(FEATURES.read_text()) | ({"online_store": dict(online)} if online else {})
    spec = FeaturesConfig.model_validate(content)
    made = Shop(data, spec, files, history)
    ingest(data, files, END)
    build_features(spec, files, [END], labels=False, until=END)
    materialize(spec, files, lambda _: None)
    return made


def purchases(
    rng: np.random.Generator, customers: int, count: int, start: datetime, end: datetime, prefix: str
) -> list[Row]:
    """Purchases in the order of time, each customer with at least one where there are enough."""
    seconds = (end - start).total_seconds()
    times = np.sort(rng.uniform(0, seconds - 1, count))
    buyers = np.concatenate([np.arange(customers), rng.integers(0, customers, max(count - customers, 0))])
    rng.shuffle(buyers)
    amounts = np.round(rng.gamma(2, 20, count), 2)
    return [
        (int(buyers[at]), (start + timedelta(seconds=float(times[at]))).isoformat(), float(amounts[at]),
         float(rng.integers(1, 5)), f"{prefix}{at}")
        for at in range(count)
    ]  # fmt: skip


def message(row: Row, **changes: Any) -> bytes:
    return json.dumps(dict(zip(COLUMNS, row, strict=True)) | changes).encode()


def data_config(file: Path, rows: Sequence[Row]) -> DataConfig:
    lines = [",".join(COLUMNS), *(",".join(map(str, row)) for row in rows)]
    file.write_text("\n".join(lines) + "\n")
    columns = dict(
        zip(("user_id", "timestamp", "amount", "quantity", "transaction_id"), COLUMNS, strict=True)
    )
    source = {"kind": "csv", "uri": str(file), "columns": columns, "user_id_type": "integer"}
    return DataConfig.model_validate({"shape": "transactions", "source": source, "expectations": []})


def vectors(made: Shop, users: Sequence[str]) -> pa.Table:
    """The customers' vectors in the online store: `user_id`, `event_timestamp` and the features."""
    store: Any = open_store(made.spec, made.files)
    view = store.get_feature_view(made.spec.view)
    names = [feature.name for feature in made.spec.features]
    keys = [{"user_id": user} for user in users]
    rows: list[dict[str, Any]] = []
    for start in range(0, len(keys), 250):
        part = keys[start : start + 250]
        found = store.get_online_features([f"{view.name}:{name}" for name in names], part)
        values, stamps = found.to_dict(), found.proto.results[-1].event_timestamps
        for at, key in enumerate(part):
            if stamps[at].seconds > 0:
                when = stamps[at].ToDatetime(tzinfo=UTC)
                rows.append(key | {"event_timestamp": when} | {name: values[name][at] for name in names})
    return pa.Table.from_pylist(rows)


def differences(made: Shop, streamed: Sequence[Row], found: pa.Table, folder: Path) -> list[str]:
    """What differs between the vectors `found` and the batch build of all purchases, each at its own time.

    The build has a workspace, a source file and an ingest of its own; it shares the mask key.
    """
    offline = Workspace(folder / "var")
    offline.mask_key.parent.mkdir(parents=True, exist_ok=True)
    offline.mask_key.write_text(made.files.mask_key.read_text())
    offline.mask_key.chmod(0o600)
    data = data_config(folder / "all.csv", [*made.history, *streamed])
    moments = sorted(set(found["event_timestamp"].to_pylist()))
    last = moments[-1] + timedelta(days=1)
    ingest(data, offline, last)
    build_features(made.spec, offline, moments, labels=False, until=last)
    snapshots = pq.read_table(offline.snapshots)
    keys = zip(snapshots["user_id"].to_pylist(), snapshots["event_timestamp"].to_pylist(), strict=True)
    place = {key: at for at, key in enumerate(keys)}
    wanted = zip(found["user_id"].to_pylist(), found["event_timestamp"].to_pylist(), strict=True)
    rows = [place.get(key, -1) for key in wanted]
    complaints = [f"no snapshot of customer {at}" for at, row in enumerate(rows) if row < 0]
    expected = snapshots.take(pa.array([max(row, 0) for row in rows]))
    for feature in made.spec.features:
        pairs = zip(found[feature.name].to_pylist(), expected[feature.name].to_pylist(), strict=True)
        unequal = [pair for pair in pairs if not _equal(*pair)]
        if unequal:
            complaints.append(f"{feature.name}: {len(unequal)} differ, first {unequal[0]}")
    return complaints


def _equal(one: Any, other: Any) -> bool:
    return one == other or (one is None and other is None)
