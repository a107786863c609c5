"""A packed row equals the rows of Feast's table, or it does not exist."""

import math
import multiprocessing
import os
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import packing
from features.spec import Feature, FeaturesConfig
from handlers.scoring.encoding import encode
from handlers.store.columns import PackedColumns
from handlers.store.opening import open_features
from handlers.store.packed import MOST_EXACT, Layout
from handlers.store.policies import Policies
from handlers.store.reader import OnlineFeatures
from handlers.store.stored import Stored
from support.servers.online_stores import NOW, SPEC, FilledStore, bundle_of, filled_store, key_of

# isort: split
from feast.infra.key_encoding_utils import serialize_entity_key

FULL = {"orders": 3, "spend": 12.5, "tenure": 0.25, "segment": "gold", "visits": 0, "town": "Łódź"}
LAYOUT = Layout([(feature.name, feature.dtype) for feature in SPEC.features])
MOMENT = 1_780_000_000
WHOLE = st.none() | st.integers(-MOST_EXACT, MOST_EXACT)
NUMBERS = st.none() | st.floats() | st.sampled_from([-0.0, math.nan, math.inf])
TEXTS = st.none() | st.text(max_size=20)
ROW = st.tuples(WHOLE, NUMBERS, NUMBERS, TEXTS, WHOLE, TEXTS)


@pytest.fixture
def store(tmp_path: Path) -> FilledStore:
    return filled_store(tmp_path, {"type": "sqlite", "path": "online.db"}, packs=True)


@pytest.fixture
def features(store: FilledStore) -> Iterator[OnlineFeatures]:
    opened = open_features(store.folder, bundle_of(), {"CHURN_STORE_TIMEOUT_MS": "20000"})
    yield opened
    opened.close()


def bits(value: Any) -> Any:
    return struct.pack("<d", value) if isinstance(value, float) else (type(value), value)


def packed(rows: list[tuple[Any, ...]]) -> PackedColumns:
    by_name = dict(zip(LAYOUT.names, zip(*rows, strict=True), strict=True))
    made = LAYOUT.pack(by_name, [MOMENT] * len(rows))
    assert None not in made
    return PackedColumns.of(LAYOUT, [one[0] for one in made if one], [one[1] for one in made if one])


def read(features: OnlineFeatures, *ids: str) -> Stored:
    return features.reader.read(ids, time.monotonic() + 20)


@given(st.lists(ROW, min_size=1, max_size=8))
def test_packed_values_are_read_unchanged(rows: list[tuple[Any, ...]]) -> None:
    columns = packed(rows)
    for at, name in enumerate(LAYOUT.names):
        assert list(map(bits, columns[name])) == [bits(row[at]) for row in rows]
    assert columns.missing() == {
        name: lacking
        for at, name in enumerate(LAYOUT.names)
        if (lacking := sum(row[at] is None for row in rows))
    }


@given(st.lists(ROW, min_size=1, max_size=8))
def test_packed_and_plain_columns_give_the_network_the_same_numbers(rows: list[tuple[Any, ...]]) -> None:
    """As whole arrays and as lists of values, with derived features, after the policies."""
    columns = packed(rows)
    ids, moments = [str(at) for at in range(len(rows))], [NOW - timedelta(days=1)] * len(rows)
    policies = Policies(lenient().contract())
    listed = {name: list(columns[name]) for name in LAYOUT.names}
    by_values = policies.apply(ids, Stored(listed, list(moments)), NOW)
    by_arrays = policies.apply(ids, Stored(packed(rows), list(moments)), NOW)
    assert isinstance(by_arrays.columns, PackedColumns)
    numeric, vocabulary = (*LAYOUT.numbers, "spend_a_month"), {"segment": ("gold", "a")}
    for ours, expected in zip(
        encode(by_arrays.columns, numeric, vocabulary),
        encode(by_values.columns, numeric, vocabulary),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, expected)
    assert (by_arrays.status, by_arrays.missing, by_arrays.reasons, by_arrays.timestamps) == (
        by_values.status,
        by_values.missing,
        by_values.reasons,
        by_values.timestamps,
    )
    for name in (*LAYOUT.names, "spend_a_month"):
        found, wanted = by_arrays.columns[name], by_values.columns[name]
        assert [None if v is None or v != v else v for v in found] == [
            None if v is None or v != v else v for v in wanted
        ]


def lenient() -> FeaturesConfig:
    """A spec without defaults, so that null remains null."""
    return SPEC.model_copy(
        update={"features": tuple(f.model_copy(update={"default": None}) for f in SPEC.features)}
    )


@given(st.lists(ROW, min_size=2, max_size=6), st.data())
def test_rows_taken_and_joined(rows: list[tuple[Any, ...]], data: st.DataObject) -> None:
    which = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6))
    both = PackedColumns.joined([packed(rows), packed(rows).taken(which)])
    for at, name in enumerate(LAYOUT.names):
        expected = [row[at] for row in rows] + [rows[one][at] for one in which]
        assert list(map(bits, both[name])) == list(map(bits, expected))


ZONED = """
import sys
sys.path[:0] = {path!r}
from support.servers.online_stores import FilledStore, NOW
from pathlib import Path
from datetime import timedelta
store = FilledStore(Path({folder!r}), {{"type": "sqlite", "path": "online.db"}}, packs=True)
store.write({{"far": {full!r}}}, NOW - timedelta(days=1))
"""


def test_writer_and_server_may_have_different_time_zones(
    store: FilledStore, features: OnlineFeatures
) -> None:
    """Feast stores local time of the writer. In New York it differs from ours by hours."""
    root = Path(__file__).resolve().parents[2]
    path = [str(root), str(root / "tests")]
    script = ZONED.format(path=path, folder=str(store.folder), full=FULL)
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "TZ": "America/New_York"}, check=True)
    assert read(features, "far").timestamps == [NOW - timedelta(days=1)]


def test_a_table_with_a_similar_name_is_not_dropped(store: FilledStore) -> None:
    other = f"{store.table.replace('_', 'x')}__packed_of_another_table"
    with closing(sqlite3.connect(store.database)) as connection, connection:
        connection.execute(f'CREATE TABLE "{other}" (entity_key BLOB)')
        connection.execute(f'CREATE TABLE "{store.table}__packed_old" (entity_key BLOB)')
    store.prepare()
    with closing(sqlite3.connect(store.database)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    assert other in tables
    assert f"{store.table}__packed_old" not in tables


@pytest.mark.parametrize(
    ("at", "value"), [(0, MOST_EXACT + 1), (0, -MOST_EXACT - 1), (0, 1.0), (1, 1), (4, True)]
)
def test_values_that_do_not_fit_are_not_packed(at: int, value: Any) -> None:
    columns = {name: [own, own] for name, own in FULL.items()}
    columns[LAYOUT.names[at]][1] = value
    fits, other = LAYOUT.pack(columns, [MOMENT] * 2)
    assert (fits is not None, other) == (True, None)


def test_a_whole_number_too_large_for_a_double_keeps_its_last_digit(
    store: FilledStore, features: OnlineFeatures
) -> None:
    store.write({"large": FULL | {"orders": 2**63 - 1}, "small": FULL})
    assert store.packed() == 1
    assert read(features, "large", "small", "nobody").columns["orders"] == [2**63 - 1, 3, None]


def test_customers_without_a_feature_of_the_spec_are_not_packed(store: FilledStore) -> None:
    with closing(sqlite3.connect(store.database)) as connection, connection:
        connection.execute(
            f"INSERT INTO {store.table} (entity_key, feature_name, value, event_ts) "
            "VALUES (?, 'retired', ?, 1)",
            [serialize_entity_key(key_of("a")), b" \x01"],
        )
    assert store.pack() == 0


def test_all_packed_is_read_as_arrays_and_a_mixture_as_values(
    store: FilledStore, features: OnlineFeatures
) -> None:
    store.write({"a": FULL, "b": FULL | {"orders": 5}})
    replace(store, packs=False).write({"c": FULL | {"orders": 7}})
    whole = read(features, "b", "nobody", "a")
    assert isinstance(whole.columns, PackedColumns)
    assert (whole.columns["orders"], whole.timestamps[1]) == ([5, None, 3], None)
    mixed = read(features, "c", "nobody", "a", "b")
    assert not isinstance(mixed.columns, PackedColumns)
    assert mixed.columns["orders"] == [7, None, 3, 5]
    assert mixed.timestamps == [NOW - timedelta(days=1), None, *[NOW - timedelta(days=1)] * 2]


def test_any_write_deletes_the_packed_row(store: FilledStore, features: OnlineFeatures) -> None:
    """By Feast, or by an UPDATE, INSERT or DELETE of the test; each is effective at once."""
    store.write({"a": FULL, "b": FULL})
    store = replace(store, packs=False)
    key = serialize_entity_key(key_of("a"))

    def by_hand(statement: str, *values: Any) -> None:
        with closing(sqlite3.connect(store.database)) as connection, connection:
            connection.execute(statement, values)

    def orders() -> list[Any]:
        return read(features, "a", "b").columns["orders"]

    assert (store.packed(), orders()) == (2, [3, 3])
    store.write({"a": {"orders": 4}})
    assert (store.packed(), orders()) == (1, [4, 3])
    assert (store.pack(), orders()) == (1, [4, 3])
    by_hand(
        f"UPDATE {store.table} SET value = ? WHERE entity_key = ? AND feature_name = 'orders'", b" \x06", key
    )
    assert (store.packed(), orders()) == (1, [6, 3])
    store.pack()
    by_hand(f"DELETE FROM {store.table} WHERE entity_key = ? AND feature_name = 'orders'", key)
    assert (store.packed(), orders()) == (1, [None, 3])
    store.pack()
    by_hand(
        f"INSERT INTO {store.table} (entity_key, feature_name, value, event_ts) VALUES (?, 'orders', ?, 5)",
        key,
        b" \x07",
    )
    assert (store.packed(), orders()) == (1, [7, 3])
    store.pack()
    by_hand(f"DELETE FROM {store.table} WHERE entity_key = ?", key)
    assert (store.packed(), orders()) == (1, [None, 3])
    assert store.pack() == 0


@pytest.mark.parametrize("change", ["insert", "update", "delete"])
def test_packed_rows_are_ignored_unless_all_triggers_exist(
    store: FilledStore, features: OnlineFeatures, change: str
) -> None:
    store.write({"a": FULL})
    assert isinstance(read(features, "a").columns, PackedColumns)
    with closing(sqlite3.connect(store.database)) as connection, connection:
        connection.execute(f'DROP TRIGGER "{store.layout.table(store.table)}_{change}"')
        connection.execute(f"UPDATE {store.table} SET value = ? WHERE feature_name = 'orders'", [b" \x09"])
    found = read(features, "a")
    assert not isinstance(found.columns, PackedColumns)
    assert found.columns["orders"] == [9]
    store.prepare()  # earlier packed rows are not used again
    assert (store.packed(), read(features, "a").columns["orders"]) == (0, [9])
    assert (store.pack(), read(features, "a").columns["orders"]) == (1, [9])


@pytest.mark.parametrize(
    "broken",
    ["numbers = x'00'", "numbers = ''", "texts = x'ff'", "texts = '[]'", "texts = NULL", "texts = 1"],
)
def test_damaged_packed_rows_are_replaced_by_those_of_feast(
    store: FilledStore, features: OnlineFeatures, broken: str
) -> None:
    store.write({"a": FULL, "b": FULL | {"orders": 5}})
    with closing(sqlite3.connect(store.database)) as connection, connection:
        connection.execute(
            f'UPDATE "{store.layout.table(store.table)}" SET {broken} WHERE entity_key = ?',
            [serialize_entity_key(key_of("a"))],
        )
    vectors = features.read(["a", "nobody", "b"], NOW)
    assert vectors.status == ("ok", "unknown", "ok")
    assert vectors.columns["orders"] == [3, None, 5]


def test_packed_rows_are_ignored_after_feast_made_its_table_again(
    store: FilledStore, features: OnlineFeatures
) -> None:
    store.write({"a": FULL})
    store = replace(store, packs=False)
    assert isinstance(read(features, "a").columns, PackedColumns)
    view = store.feast.get_feature_view(SPEC.view)
    store.writer.update(store.feast.config, [view], [], [], [], partial=False)
    store.writer.update(store.feast.config, [], [view], [], [], partial=False)
    store.write({"b": FULL})
    assert read(features, "a", "b").columns["orders"] == [None, 3]


def test_another_spec_has_another_table(store: FilledStore, features: OnlineFeatures) -> None:
    store.write({"a": FULL})
    other = [*LAYOUT.features, ("age", "int64")]
    packing.prepare(store.database, store.table, other)
    assert packing.pack(store.database, store.table, other) == 1
    with closing(sqlite3.connect(store.database)) as connection:
        names = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master") if "__packed_" in name
        }
    assert all(Layout(other).digest in name for name in names)
    found = read(features, "a")  # the earlier spec is read from Feast's table
    assert not isinstance(found.columns, PackedColumns)
    assert found.columns["orders"] == [3]
    packing.prepare(store.database, store.table, other)
    with closing(sqlite3.connect(store.database)) as connection:
        [(count,)] = connection.execute(f'SELECT count(*) FROM "{Layout(other).table(store.table)}"')
    assert count == 1  # a second `prepare` changes nothing


def test_a_table_that_is_packed_later_is_used_at_once(tmp_path: Path) -> None:
    store = filled_store(tmp_path, {"type": "sqlite", "path": "online.db"})
    store.write({"a": FULL})
    features = open_features(tmp_path, bundle_of(), {"CHURN_STORE_TIMEOUT_MS": "20000"})
    assert not isinstance(read(features, "a").columns, PackedColumns)
    store.prepare()
    store.pack()
    assert isinstance(read(features, "a").columns, PackedColumns)
    features.close()


def write_on(folder: Path, online: dict[str, Any], until: float) -> None:
    """A writer in a separate process. It writes the same number into all features of a customer."""
    store, number = FilledStore(folder, online), 0
    while time.time() < until:
        number += 1
        for who in range(4):
            store.write({f"w{who}": all_equal(number)})


def all_equal(number: int) -> dict[str, Any]:
    kinds = {"int64": int, "float64": float, "string": str}
    return {feature.name: kinds[feature.dtype](number) for feature in SPEC.features}


def test_no_read_is_old_or_partial_while_others_write_and_pack(
    store: FilledStore, features: OnlineFeatures
) -> None:
    for who in range(4):
        store.write({f"w{who}": all_equal(0)})
    until = time.time() + 120  # a busy machine needs long to start a process
    writer = multiprocessing.get_context("spawn").Process(
        target=write_on, args=(store.folder, dict(store.online), until)
    )
    writer.start()
    try:
        newest = [0] * 4
        reads = packed_reads = 0
        while min(newest) < 30 and time.time() < until:
            store.pack()
            found = read(features, "w0", "w1", "w2", "w3")
            reads += 1
            packed_reads += isinstance(found.columns, PackedColumns)
            for at in range(4):
                [number] = {int(column[at]) for column in found.columns.values()}
                assert number >= newest[at]
                newest[at] = number
        assert min(newest) >= 30
        assert reads > 10
        assert packed_reads > 0
    finally:
        writer.terminate()
        writer.join(10)


def test_a_spec_without_texts_is_packed(tmp_path: Path) -> None:
    spec = SPEC.model_copy(
        update={"features": (Feature(name="spend", dtype="float64"), Feature(name="tenure", dtype="float64"))}
    )
    store = filled_store(tmp_path, {"type": "sqlite", "path": "online.db"}, spec, packs=True)
    store.write({"a": {"spend": 1.5, "tenure": 2.0}})
    features = open_features(tmp_path, bundle_of(spec), {"CHURN_STORE_TIMEOUT_MS": "20000"})
    vectors = features.read(["a"], NOW)
    assert isinstance(vectors.columns, PackedColumns)
    assert vectors.columns["spend_a_month"] == [0.75]
    features.close()
