"""The feature store on the real log: registered, materialised, read point-in-time and online."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from core.errors import FeatureError
from features.build import build_features
from features.history import point_in_time, training_set
from features.parity import check, read_online
from features.project import PROJECT
from features.repo.definitions import derivation
from features.show import describe
from features.spec import FeaturesConfig
from features.store import (
    ONLINE_VARIABLE,
    apply,
    materialize,
    open_store,
    pack,
    serving_environment,
    serving_yaml,
)
from handlers.store.packed import Layout
from support.feature_records import CONFIG, cdnow, write_labelled, write_transactions

ROOT = Path(__file__).parents[2]
SHIPPED = FeaturesConfig.model_validate(yaml.safe_load(CONFIG.read_text()))
SPEC = FeaturesConfig.model_validate(yaml.safe_load(CONFIG.read_text()) | {"threads": 2, "eligible": None})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The whole of CDNOW, materialised. Tests read it only."""
    files = write_transactions(tmp_path_factory.mktemp("cdnow"), cdnow())
    build_features(SPEC, files)
    assert materialize(SPEC, files) == 23_570
    return files


@pytest.fixture
def own_files(tmp_path, cdnow_log):
    """A few customers, for tests that change something."""
    users = sorted(cdnow_log["user_id"].unique())[:200]
    files = write_transactions(tmp_path, cdnow_log[cdnow_log["user_id"].isin(users)])
    build_features(SPEC, files)
    return files


def test_offline_and_online_agree_exactly_for_a_thousand_customers(files):
    report = check(SPEC, files, n=1000, seed=7)
    assert report.customers == 1000
    assert report.mismatches == {}
    assert report.agree


def test_parity_reports_the_feature_that_differs(own_files):
    materialize(SPEC, own_files)
    store = open_store(SPEC, own_files)
    snapshots = pd.read_parquet(own_files.snapshots)
    pushed = snapshots[snapshots["event_timestamp"] == snapshots["event_timestamp"].max()].head(3)
    pushed = pushed.assign(total_spend=np.nextafter(pushed["total_spend"], np.inf))
    store.push(f"{SPEC.view}_push", pushed)
    report = check(SPEC, own_files)
    assert (report.customers, report.mismatches, report.agree) == (200, {"total_spend": 3}, False)
    assert report.examples[0].startswith("total_spend: offline ")


def test_training_set_is_the_labels_with_their_own_snapshots(files):
    table = training_set(SPEC, files)
    assert list(table.columns) == ["user_id", "event_timestamp", "churned", *SPEC.numeric, *SPEC.categorical]
    labels, snapshots = pd.read_parquet(files.labels), pd.read_parquet(files.snapshots)
    pd.testing.assert_frame_equal(table[["user_id", "event_timestamp", "churned"]], labels)
    expected = labels.merge(snapshots, on=["user_id", "event_timestamp"], validate="1:1")
    for name in (feature.name for feature in SPEC.features):
        np.testing.assert_array_equal(table[name], expected[name])
    ratio = expected["total_purchases"] / np.maximum(expected["tenure_months"], 1.0)
    np.testing.assert_array_equal(table["purchase_frequency"], ratio)


def test_point_in_time_equals_merge_asof_between_snapshots(files):
    snapshots = pd.read_parquet(files.snapshots)
    rng = np.random.default_rng(3)
    entities = snapshots[["user_id", "event_timestamp"]].sample(5000, random_state=3)
    entities["event_timestamp"] += pd.to_timedelta(rng.integers(0, 35 * 86_400, len(entities)), unit="s")
    entities["event_timestamp"] = entities["event_timestamp"].astype("datetime64[us, UTC]")
    found = point_in_time(SPEC, open_store(SPEC, files), pa.Table.from_pandas(entities, preserve_index=False))
    expected = pd.merge_asof(
        entities.reset_index(names="row").sort_values("event_timestamp"),
        snapshots.sort_values("event_timestamp"),
        on="event_timestamp",
        by="user_id",
        tolerance=SPEC.ttl,
    )
    expected = expected.set_index("row").loc[entities.index]
    for name in (feature.name for feature in SPEC.features):
        np.testing.assert_array_equal(found[name].to_numpy(), expected[name].to_numpy())


def test_rows_without_a_fresh_snapshot_are_refused(files):
    labels = pq.read_table(files.labels).slice(0, 10)
    late = labels.to_pandas()
    late["event_timestamp"] += timedelta(days=600)
    with pytest.raises(
        FeatureError, match=r"10 of 10 training rows have no snapshot within features\.ttl_days"
    ):
        point_in_time(SPEC, open_store(SPEC, files), pa.Table.from_pandas(late, preserve_index=False))


def test_a_later_correction_does_not_change_the_past(own_files):
    """A second row for the same moment, created the day after, must not reach a label of that moment."""
    snapshots = pq.read_table(own_files.snapshots)
    corrected = snapshots.to_pandas()
    corrected["created_timestamp"] += timedelta(days=1)
    corrected["total_purchases"] = 99
    both = pa.concat_tables([snapshots, pa.Table.from_pandas(corrected, schema=snapshots.schema)])
    pq.write_table(both, own_files.snapshots)
    apply(SPEC, own_files)
    assert 99 not in training_set(SPEC, own_files)["total_purchases"].to_numpy()


def test_materialize_again_writes_the_new_values_and_definitions(own_files):
    assert materialize(SPEC, own_files) == materialize(SPEC, own_files) == 200
    store = open_store(SPEC, own_files)
    service = store.get_feature_service(SPEC.service)
    assert service.tags == {"spec_digest": SPEC.digest()}
    in_order = [f.name for projection in service.feature_view_projections for f in projection.features]
    assert in_order == [*(f.name for f in SPEC.features), "purchase_frequency"]
    view = store.get_feature_view(SPEC.view)
    assert (view.ttl, view.entities) == (SPEC.ttl, [SPEC.entity])
    assert store.get_entity(SPEC.entity).join_key == "user_id"


def test_all_materialized_customers_are_packed_for_the_server(own_files):
    materialize(SPEC, own_files)
    layout = Layout([(feature.name, feature.dtype) for feature in SPEC.features])
    table = f"{PROJECT}_{SPEC.view}"
    with closing(sqlite3.connect(serving_environment(SPEC, own_files)[ONLINE_VARIABLE])) as connection:
        [(packed, feasts)] = connection.execute(
            f'SELECT (SELECT count(*) FROM "{layout.table(table)}"), '
            f"(SELECT count(DISTINCT entity_key) FROM {table})"
        ).fetchall()
    assert packed == feasts == 200
    assert pack(SPEC, own_files) == 0


def test_an_unknown_customer_has_only_nulls(files):
    assert set(map(tuple, read_online(SPEC, open_store(SPEC, files), ["u_" + "0" * 32]).values())) == {
        (None,)
    }


def test_a_store_for_another_spec_or_none_is_refused(own_files):
    with pytest.raises(FeatureError, match="not in the feature store; run `churn features materialize`"):
        open_store(SPEC, own_files)
    apply(SPEC, own_files)
    other = SPEC.model_copy(update={"ttl_days": 5})
    with pytest.raises(FeatureError, match="registered for another feature spec"):
        open_store(other, own_files)
    with pytest.raises(FeatureError, match="snapshots were built for another feature spec"):
        materialize(other, own_files)


def test_the_archive_s_yaml_works_where_the_project_is_not_installed(files, tmp_path):
    """As in the .mar: addresses from the environment, and the on-demand code from the registry."""
    (tmp_path / "feature_store.yaml").write_text(serving_yaml(SPEC, files))
    assert str(files.root) not in serving_yaml(SPEC, files)
    user_id = pq.read_table(files.snapshots, columns=["user_id"])["user_id"][0].as_py()
    script = textwrap.dedent("""
        import json, sys
        for room in ("features", "data", "handlers", "churn"):
            sys.modules[room] = None
        from feast import FeatureStore
        store = FeatureStore(repo_path=".")
        service = store.get_feature_service(sys.argv[1])
        answer = store.get_online_features(features=service, entity_rows=[{"user_id": sys.argv[2]}])
        print(json.dumps(answer.to_dict()))
    """)
    result = subprocess.run(
        [sys.executable, "-c", script, SPEC.service, user_id],
        cwd=tmp_path,
        env={**os.environ, **serving_environment(SPEC, files)},
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(result.stdout.splitlines()[-1])
    assert answer.pop("user_id") == [user_id]
    assert answer == read_online(SPEC, open_store(SPEC, files), [user_id])


def test_the_derivation_uses_no_outer_name_and_null_gives_null():
    namespace = {"__builtins__": {"zip": zip, "float": float, "max": max}}
    exec(derivation(SPEC), namespace)  # noqa: S102
    inputs = {"total_purchases": [3, None, 2, 5], "tenure_months": [0.5, 2.0, None, 7.0]}
    assert namespace["derive"](inputs) == {"purchase_frequency": [3.0, None, None, 5 / 7]}


@pytest.mark.slow
def test_feast_s_own_command_line_applies_the_same_definitions(own_files, tmp_path):
    repo = tmp_path / "clone" / "features" / "repo"
    shutil.copytree(ROOT / "features" / "repo", repo, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CONFIG.parent, tmp_path / "clone" / "configs")
    own_files.feast.mkdir()
    feast = Path(sys.executable).with_name("feast")
    command = [str(feast), "-c", str(repo), "apply"]
    without = {k: v for k, v in os.environ.items() if not k.startswith("CHURN_")}
    refused = subprocess.run(command, env=without, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "export CHURN_FEAST_REGISTRY" in refused.stderr
    environment = without | serving_environment(SPEC, own_files)
    subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    store = open_store(SHIPPED, own_files)  # refuses another digest
    assert store.get_data_source("user_features_snapshots").path == str(own_files.snapshots)
    assert sorted(path.name for path in repo.iterdir() if path.suffix) == [
        "__init__.py",
        "definitions.py",
        "feature_store.yaml",
    ]


def test_the_repo_s_yaml_is_the_archive_s(files):
    committed = yaml.safe_load((ROOT / "features" / "repo" / "feature_store.yaml").read_text())
    assert committed == yaml.safe_load(serving_yaml(SPEC, files))


def test_the_archive_contains_no_secrets_of_a_platform(files):
    production = SPEC.model_copy(
        update={
            "online_store": {"type": "redis", "connection_string": "cache:6379,password=hidden"},
            "registry": {"registry_type": "sql", "path": "postgresql://churn:hidden@db/feast"},
        }
    )
    assert "hidden" not in serving_yaml(production, files)
    assert serving_environment(production, files) == {
        "CHURN_FEAST_REGISTRY": "postgresql://churn:hidden@db/feast",
        "CHURN_FEAST_ONLINE": "cache:6379,password=hidden",
    }


def test_show_describes_the_newest_snapshot(files):
    rows = {row["feature"]: row for row in describe(SPEC, files)}
    assert list(rows) == [*(f.name for f in SPEC.features), "purchase_frequency"]
    snapshots = pd.read_parquet(files.snapshots)
    newest = snapshots[snapshots["event_timestamp"] == snapshots["event_timestamp"].max()]
    gap = rows["gap_mean_days"]
    assert gap["non_null_share"] == pytest.approx(newest["gap_mean_days"].notna().mean())
    assert gap["median"] == pytest.approx(newest["gap_mean_days"].median())
    assert (rows["total_purchases"]["min"], rows["total_purchases"]["max"]) == (1, 217)
    assert gap["description"] == "mean days between purchases"


def test_each_row_of_a_panel_is_a_training_row_and_the_newest_is_online(tmp_path):
    """One row per customer and month, with times to the microsecond, and some gaps beyond the TTL."""
    draw = np.random.default_rng(5)
    rows = [
        (f"u_{customer:032x}", pd.Timestamp("2019-01-01", tz="UTC") + pd.Timedelta(int(us), "us"))
        for customer in range(40)
        for us in draw.integers(0, 730 * 86_400_000_000, draw.integers(1, 9))
    ]
    table = pd.DataFrame(rows, columns=["user_id", "event_timestamp"])
    table["event_timestamp"] = table["event_timestamp"].astype("datetime64[us, UTC]")
    table["target"] = draw.integers(0, 2, len(table)).astype("int8")
    table["balance"] = draw.normal(size=len(table))
    table["plan"] = draw.choice(["a", "b"], len(table))
    files = write_labelled(tmp_path, table)
    features = [{"name": "balance", "dtype": "float64"}, {"name": "plan", "dtype": "string"}]
    spec = SPEC.model_validate(SPEC.model_dump() | {"features": features, "derived": [], "ttl_days": 20})
    build_features(spec, files)
    newest = table.sort_values("event_timestamp").groupby("user_id").tail(1).sort_values("user_id")
    assert materialize(spec, files) == len(newest) == 40
    keys = ["user_id", "event_timestamp"]
    built = training_set(spec, files).sort_values(keys, ignore_index=True)
    expected = table.sort_values(keys, ignore_index=True)
    assert built["balance"].tolist() == expected["balance"].tolist()
    assert built["churned"].tolist() == expected["target"].tolist()
    online = read_online(spec, open_store(spec, files), newest["user_id"].tolist())
    assert online["balance"] == newest["balance"].tolist()
    assert online["plan"] == newest["plan"].tolist()
    assert check(spec, files).agree
    steady = spec.model_copy(update={"eligible": "balance > 0"})
    record = build_features(steady, files)
    assert (record["rows"], record["label_rows"]) == ((table["balance"] > 0).sum(),) * 2
    assert materialize(steady, files) == table[table["balance"] > 0]["user_id"].nunique()


def test_a_labelled_table_is_built_materialized_and_read(tmp_path):
    """Categorical columns, rows observed on different days, no derived feature."""
    days = pd.to_datetime(["2019-01-01"] * 30 + ["2019-06-01"] * 20, utc=True)
    table = pd.DataFrame(
        {
            "user_id": [f"u_{number:032x}" for number in range(50)],
            "event_timestamp": days,
            "target": np.arange(50, dtype="int8") % 2,
            "tenure": np.arange(50),
            "charges": [None if number % 7 == 0 else number / 3 for number in range(50)],
            "Contract": [("Two year", "One year", None)[number % 3] for number in range(50)],
        }
    )
    files = write_labelled(tmp_path, table)
    features = [
        {"name": "tenure", "dtype": "int64", "default": 0},
        {"name": "charges", "dtype": "float64"},
        {"name": "Contract", "dtype": "string"},
    ]
    spec = SPEC.model_validate(
        SPEC.model_dump() | {"service": "telco_v1", "features": features, "derived": []}
    )
    build_features(spec, files)
    assert materialize(spec, files) == 50
    built = training_set(spec, files).sort_values("user_id", ignore_index=True)
    assert list(built.columns[3:]) == ["tenure", "charges", "Contract"]
    assert built["churned"].tolist() == table["target"].tolist()
    assert built["Contract"].tolist() == table["Contract"].tolist()
    assert check(spec, files).agree


def test_feast_does_not_share_the_metrics_of_processes():
    """With Feast imported first, two registries of one process would count into the same file."""
    code = (
        "import os, features.lean_feast; from prometheus_client import CollectorRegistry, Counter;"
        "one, two = (Counter('n', 'n', registry=CollectorRegistry()) for _ in range(2)); one.inc();"
        "assert two.collect()[0].samples[0].value == 0; assert 'PROMETHEUS_MULTIPROC_DIR' not in os.environ"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_feast_imports_pytorch_only_when_a_tensor_is_wanted():
    code = (
        "import sys, features.lean_feast; assert 'torch' not in sys.modules;"
        "from feast.infra.offline_stores.offline_store import get_torch;"
        "assert get_torch().tensor([2]).tolist() == [2]"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
