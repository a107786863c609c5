"""Building snapshots: the real log, reproducible bytes, and errors that state what to correct."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from pydantic import ValidationError

from core.errors import FeatureError
from features import log, purchases
from features.build import build_features
from features.database import write_parquet
from features.show import describe
from support.feature_records import records_part, write_labelled, write_manifest, write_transactions

DEC, JUN, JUL = (datetime(*month, 1, tzinfo=UTC) for month in ((1997, 12), (1998, 6), (1998, 7)))


@pytest.fixture
def small(tmp_path, cdnow_log):
    """A tenth of the real customers."""
    users = sorted(cdnow_log["user_id"].unique())[::10]
    return write_transactions(tmp_path, cdnow_log[cdnow_log["user_id"].isin(users)])


def built_bytes(files):
    return files.snapshots.read_bytes(), files.labels.read_bytes()


def with_feature(make_spec, **feature):
    return make_spec(features=[feature], derived=[])


def test_the_real_log_gives_the_published_rows(tmp_path, cdnow_log, make_spec):
    spec = make_spec()
    files = write_transactions(tmp_path, cdnow_log)
    record = build_features(spec, files)
    assert record == json.loads(files.feature_manifest.read_text())
    assert record["latest"] == "1998-07-01T00:00:00+00:00"
    assert record["spec_digest"] == spec.digest()
    labels = pd.read_parquet(files.labels)
    test = labels["event_timestamp"] >= datetime(1998, 2, 1, tzinfo=UTC)
    train = labels["event_timestamp"] <= datetime(1997, 11, 1, tzinfo=UTC)
    assert (int(test.sum()), int(train.sum())) == (70_710, 188_560)
    assert round(float(labels[test]["churned"].mean()), 3) == 0.848

    schema = pq.read_schema(files.snapshots)
    assert schema.names == [
        "user_id",
        "event_timestamp",
        "created_timestamp",
        *(f.name for f in spec.features),
    ]
    assert schema.field("event_timestamp").type == pa.timestamp("us", tz="UTC")
    assert pq.read_schema(files.labels).field("churned").type == pa.int8()
    snapshots = pd.read_parquet(files.snapshots, columns=["event_timestamp", "user_id"])
    assert len(snapshots) == record["rows"] == 16 * 23_570
    assert snapshots.equals(snapshots.sort_values(["event_timestamp", "user_id"], ignore_index=True))
    assert sorted(p.name for p in files.features.iterdir()) == [
        "customer_snapshots.parquet",
        "features.json",
        "labels.parquet",
    ]


def test_the_shipped_rule_excludes_customers_who_left_long_ago(tmp_path, cdnow_log, make_spec):
    """Customers whose last purchase was 446 days ago are not judged, scored or stored online."""
    files = write_transactions(tmp_path, cdnow_log)
    record = build_features(make_spec(eligible="auto"), files)
    assert (record["eligible"], record["not_eligible_rows"]) == ("recency_days <= 365", 72_785)
    snapshots, labels = pd.read_parquet(files.snapshots), pd.read_parquet(files.labels)
    assert snapshots["recency_days"].max() == 365.0
    assert (snapshots["event_timestamp"] == JUL).sum() == 8_332
    test = labels[labels["event_timestamp"] >= datetime(1998, 2, 1, tzinfo=UTC)]
    assert (len(test), round(float(test["churned"].mean()), 3)) == (42_648, 0.772)
    assert len(labels.merge(snapshots, on=["user_id", "event_timestamp"])) == len(labels)


def test_eligibility_is_a_condition_over_features(small, make_spec):
    for condition, message in (
        ("recency <= 3", r"of the features there is no column 'recency'; did you mean recency_days"),
        ("Recency_days <= 3", "there is no column 'Recency_days'"),
        ("recency_days <=", "features.eligible: not an SQL expression"),
        ("purchase_frequency > 1", "there is no column 'purchase_frequency'"),
    ):
        with pytest.raises(ValidationError, match=message):
            make_spec(eligible=condition)
    with pytest.raises(FeatureError, match=r"features\.eligible: gives DOUBLE; write a condition"):
        build_features(make_spec(eligible="recency_days"), small)
    with pytest.raises(FeatureError, match=r"features\.eligible: not one of .* rows is eligible; correct"):
        build_features(make_spec(eligible="recency_days < 0"), small)
    of_a_table = make_spec(features=[{"name": "n", "dtype": "float64"}], derived=[], eligible="auto")
    assert of_a_table.eligibility is None


def test_a_description_changes_no_digest_and_a_rule_does(make_spec):
    spec = make_spec()
    described = [feature.model_copy(update={"description": "mended"}) for feature in spec.features]
    assert spec.model_copy(update={"features": tuple(described)}).digest() == spec.digest()
    others = [
        make_spec(eligible="auto"),
        make_spec(returns_count_as_life=True),
        make_spec(ttl_days=7),
        spec.model_copy(update={"features": spec.features[:-1]}),
        spec.model_copy(update={"features": (spec.features[0].model_copy(update={"over": "all"}),)}),
    ]
    assert len({spec.digest(), *(other.digest() for other in others)}) == 6


def test_bytes_depend_on_the_rows_only(small, make_spec, monkeypatch):
    """They do not depend on threads or on the ranges of customers."""
    build_features(make_spec(threads=1), small)
    expected = built_bytes(small)
    monkeypatch.setattr(log, "RANGE_ROWS", 500)
    build_features(make_spec(threads=3), small)
    assert built_bytes(small) == expected


def test_beyond_the_memory_limit_the_bytes_are_the_same(tmp_path, cdnow_log, make_spec, monkeypatch):
    copies = [cdnow_log.assign(user_id=cdnow_log["user_id"] + str(copy)) for copy in range(4)]
    files = write_transactions(tmp_path, pd.concat(copies))
    monkeypatch.setattr(log, "RANGE_ROWS", 10**9)  # one range, which does not fit into memory
    build_features(make_spec(), files, as_of=[DEC])
    expected = built_bytes(files)
    spilled = []

    def watched(connection, query, part):
        write_parquet(connection, query, part)
        spilled.extend(connection.execute("SELECT size FROM duckdb_temporary_files()").fetchall())

    monkeypatch.setattr(purchases, "write_parquet", watched)
    build_features(make_spec(memory_limit="60MB"), files, as_of=[DEC])
    assert built_bytes(files) == expected
    assert spilled
    with pytest.raises(FeatureError, match=r"memory_limit 10MB is too small: .*; raise it$") as caught:
        build_features(make_spec(memory_limit="10MB"), files, as_of=[DEC])
    assert "\n" not in str(caught.value)


def test_requested_times_and_unlabelled_ones(small, make_spec):
    record = build_features(make_spec(), small, as_of=[DEC])
    assert record["snapshots"] == record["labelled_snapshots"] == ["1997-12-01T00:00:00+00:00"]
    record = build_features(make_spec(), small, as_of=[JUN, DEC], labels=False)
    assert (record["latest"], record["label_rows"]) == ("1998-06-01T00:00:00+00:00", 0)
    assert pq.read_metadata(small.labels).num_rows == 0


def test_a_moment_before_the_first_customer_is_refused(tmp_path, cdnow_log, make_spec):
    files = write_transactions(tmp_path, cdnow_log, start=datetime(1996, 1, 1, tzinfo=UTC))
    with pytest.raises(FeatureError, match="no customer was known yet"):
        build_features(make_spec(), files, as_of=[datetime(1996, 6, 1, tzinfo=UTC)])


def test_a_refused_build_does_not_change_the_old_one(small, make_spec):
    build_features(make_spec(), small)
    before = built_bytes(small)
    with pytest.raises(FeatureError, match="last as_of with a label is 1998-04-02"):
        build_features(make_spec(), small, as_of=[JUN])
    with pytest.raises(FeatureError, match="feature broken"):
        build_features(with_feature(make_spec, name="broken", dtype="float64", sql="avg(nothing)"), small)
    assert built_bytes(small) == before
    assert len(list(small.features.parent.glob("version-*"))) == 1


def test_two_builds_at_once_and_the_leftovers_of_a_killed_one(small, make_spec):
    leftover = small.features.parent / "version-of-a-killed-run"
    leftover.mkdir(parents=True)
    with (
        FileLock(small.features.parent / ".lock"),
        pytest.raises(FeatureError, match="being built there already"),
    ):
        build_features(make_spec(), small)
    build_features(make_spec(), small)
    assert not leftover.exists()


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"dtype": "float64", "sql": "avg(amuont)"}, r"feature bad: .*amuont"),
        ({"dtype": "float64", "sql": "amount"}, "feature bad: .*GROUP BY"),
        ({"dtype": "float64"}, "feature bad: give its sql, an aggregate"),
        (
            {"dtype": "int64", "default": 0, "sql": "avg(amount)"},
            "feature bad: .*gives DOUBLE, but its dtype is int64",
        ),
        ({"dtype": "float64", "sql": "max(timestamp)"}, "feature bad: .*gives TIMESTAMP"),
        ({"dtype": "float64", "sql": "max(user_id::DOUBLE)"}, "feature bad: Conversion Error"),
    ],
)
def test_a_wrong_expression_is_refused_in_one_line(small, make_spec, feature, message):
    spec = with_feature(make_spec, name="bad", **feature)
    with pytest.raises(FeatureError, match=message) as caught:
        build_features(spec, small)
    assert "\n" not in str(caught.value)
    assert not small.features.exists()


def test_nan_and_infinity_become_null_and_then_the_default(small, make_spec):
    endless = "avg(amount) / 0.0"
    features = [
        {"name": "open", "dtype": "float64", "sql": endless},
        {"name": "filled", "dtype": "float64", "sql": endless, "default": -1.0},
    ]
    build_features(make_spec(features=features, derived=[]), small)
    table = pq.read_table(small.snapshots)
    assert table["open"].null_count == table.num_rows
    assert table["filled"].unique().to_pylist() == [-1.0]


def test_an_expression_may_read_a_further_column(tmp_path, cdnow_log, make_spec):
    files = write_transactions(tmp_path, cdnow_log.head(3000))
    table = pq.read_table(records_part(files))
    shop = pa.array(["web" if row % 3 else "store" for row in range(table.num_rows)])
    pq.write_table(table.append_column("shop", shop), records_part(files))
    spec = with_feature(make_spec, name="home_shop", dtype="string", sql="min(shop)")
    build_features(spec, files)
    assert set(pq.read_table(files.snapshots)["home_shop"].to_pylist()) == {"web", "store"}


def test_missing_or_inconsistent_inputs_are_refused(small, make_spec):
    pq.write_table(pq.read_table(records_part(small)).slice(0, 100), records_part(small))
    with pytest.raises(FeatureError, match=r"100 rows, its manifest \d+; .*churn ingest"):
        build_features(make_spec(), small)
    records_part(small).unlink()
    with pytest.raises(FeatureError, match=r"no records are there; run `churn ingest`"):
        build_features(make_spec(), small)
    small.manifest.unlink()
    with pytest.raises(FeatureError, match=r"manifest\.json: not there; run `churn ingest` first"):
        build_features(make_spec(), small)


def test_an_unsorted_log_is_refused(small, make_spec):
    table = pq.read_table(records_part(small))
    pq.write_table(table.take(list(reversed(range(table.num_rows)))), records_part(small))
    with pytest.raises(FeatureError, match="not sorted"):
        build_features(make_spec(), small)


def test_too_little_memory_is_reported(small, make_spec):
    with pytest.raises(FeatureError, match=r"memory_limit"):
        build_features(make_spec(memory_limit="1 potato"), small)


# ------------------------------------------------------------------ labelled tables

CUSTOMERS = pd.DataFrame(
    {
        "user_id": ["u_c", "u_a", "u_b"],
        "event_timestamp": pd.to_datetime(["2019-02-01", "2019-01-01", "2019-01-01"], utc=True),
        "target": pd.array([1, 0, 1], dtype="int8"),
        "tenure": [3, 40, 1],
        "Contract": ["Two year", None, "One year"],
    }
)


def test_snapshots_of_a_labelled_table_have_its_rows_and_times(tmp_path, make_spec):
    files = write_labelled(tmp_path, CUSTOMERS)
    features = [
        {"name": "tenure", "dtype": "int64", "default": 0},
        {"name": "Contract", "dtype": "string", "default": "none"},
        {"name": "years", "dtype": "float64", "sql": "tenure / 12"},
    ]
    spec = make_spec(features=features, derived=[])
    record = build_features(spec, files)
    assert record["snapshots"] == ["2019-01-01T00:00:00+00:00", "2019-02-01T00:00:00+00:00"]
    assert pq.read_table(files.snapshots).select(["user_id", "tenure", "Contract", "years"]).to_pydict() == {
        "user_id": ["u_a", "u_b", "u_c"],
        "tenure": [40, 1, 3],
        "Contract": ["none", "One year", "Two year"],
        "years": [40 / 12, 1 / 12, 0.25],
    }
    assert pq.read_table(files.labels)["churned"].to_pylist() == [0, 1, 1]
    shown = {row["feature"]: row for row in describe(spec, files)}
    assert (shown["tenure"]["min"], shown["tenure"]["max"], shown["Contract"]["type"]) == (1, 40, "string")
    with pytest.raises(FeatureError, match="as_of: the rows of a labelled table"):
        build_features(spec, files, as_of=[DEC])


def test_an_absent_column_is_refused_with_similar_names(tmp_path, make_spec):
    files = write_labelled(tmp_path, CUSTOMERS)
    with pytest.raises(FeatureError, match="feature tenur: there is no column 'tenur'; did you mean tenure"):
        build_features(with_feature(make_spec, name="tenur", dtype="float64"), files)


def test_an_empty_table_is_refused(tmp_path, make_spec):
    files = write_labelled(tmp_path, CUSTOMERS)
    pq.write_table(pq.read_table(records_part(files)).slice(0, 0), records_part(files))
    write_manifest(files, "labelled", 0, DEC, JUN)
    with pytest.raises(FeatureError, match="no rows"):
        build_features(make_spec(), files)


def test_nothing_is_written_outside_the_workspace(small, make_spec, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    build_features(make_spec(), small)
    assert list(Path(elsewhere).iterdir()) == []
