"""A window of monitoring over up to 10 million logged predictions: seconds, processor time and peak memory.

The log of purchases is repeated for other customers, so that there are ten times as many; the vectors of the
predictions are those of the newest snapshot, spread over the window.

Performance is measured on a log of its own, as many predictions, each of another customer or moment: one
half is of the 30 days whose horizon has just passed, the other half of the last 30 days.

    python -m benchmarks.monitoring.scale --records var/data/current/records --rows 1000000 3000000 10000000
    python -m benchmarks.monitoring.scale --part performance --rows 10000000
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from benchmarks.monitoring.ground import computed, write_records
from churn.settings import load_settings
from monitoring.findings import Severity
from monitoring.performance.check import performance
from monitoring.performance.inputs import PerformanceInputs
from monitoring.run import collect, judge
from monitoring.sources import Sources

COPIES = 10
MONTHS = 13
DAYS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, default=Path("var/data/current/records"))
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 3_000_000, 10_000_000])
    parser.add_argument("--out", type=Path, default=Path("var/bench/monitoring-scale.json"))
    parser.add_argument("--part", choices=("data", "performance", "both"), default="both")
    parser.add_argument("--measure", type=Path, help="used by this program itself: the folder to read")
    arguments = parser.parse_args()
    if arguments.measure:
        one = measured if arguments.part == "data" else measured_performance
        print(json.dumps(one(arguments.measure)))
        return
    parts = ("data", "performance") if arguments.part == "both" else (arguments.part,)
    results = []
    with tempfile.TemporaryDirectory(prefix="scale-") as scratch:
        root = Path(scratch)
        _prepare(root, arguments.records)
        for rows in arguments.rows:
            for part in parts:
                _write_log(root, rows) if part == "data" else _write_matured(root, rows)
                own = [
                    sys.executable,
                    "-m",
                    "benchmarks.monitoring.scale",
                    "--part",
                    part,
                    "--measure",
                    str(root),
                ]
                answer = subprocess.run(own, check=True, capture_output=True, text=True)  # a peak of its own
                results.append(
                    {"predictions": rows, "part": part, **json.loads(answer.stdout.splitlines()[-1])}
                )
                print(results[-1], flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=2) + "\n")


def measured(root: Path) -> dict[str, float]:
    """One run of the monitor on the files of `root`."""
    settings = load_settings()
    config = settings.monitoring.model_copy(update={"every_days": float(DAYS)})
    newest = pd.Timestamp((root / "newest").read_text())
    at = (newest + pd.Timedelta(days=DAYS)).to_pydatetime()
    sources = Sources(
        spec=settings.features,
        since=at - timedelta(days=DAYS),
        at=at,
        records=[root / "base-00000.parquet"],
        snapshots=root / "snapshots.parquet",
        labels=root / "none",
        training=root / "none",
        test_scores=root / "none",
        predictions=root / "predictions",
    )
    begin = time.monotonic()
    checked = judge(collect(sources, config))
    pages = [one.key for one in checked.findings if one.severity is Severity.PAGE]
    return _used(begin) | {
        "compared": max(one.rows for one in checked.measurements if one.name == "served_skew_share"),
        "pages": pages,  # type: ignore[dict-item]
    }


def measured_performance(root: Path) -> dict[str, float]:
    """The performance on the files of `root`: late and early labels, and the estimate without labels."""
    settings = load_settings()
    at = pd.Timestamp((root / "newest").read_text()).to_pydatetime()
    inputs = PerformanceInputs(
        at=at,
        predictions=ds.dataset(sorted(str(file) for file in (root / "matured").glob("*/*.parquet"))),
        activity=ds.dataset(root / "activity.parquet"),
        known_until=at,
        version="v1",
        spec=settings.features,
        decision=settings.decision,
    )
    begin = time.monotonic()
    found = {one.name: one for one in performance(inputs, settings.monitoring).measurements}
    return _used(begin) | {
        "labels": found["late_auroc"].rows,
        "early": found["early_avoidable_nats"].rows,
        "estimated": found["estimated_auroc"].rows,
    }


def _used(begin: float) -> dict[str, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": round(time.monotonic() - begin, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),
    }


def _prepare(root: Path, records: Path) -> None:
    log = pq.read_table(records, partitioning=None).to_pandas()
    copies = [log.assign(user_id=log["user_id"] + f"-{copy}") for copy in range(COPIES)]
    log = pd.concat(copies, ignore_index=True)
    write_records(log, root / "base-00000.parquet")
    newest = log["timestamp"].max().normalize()
    moments = [newest - pd.Timedelta(days=DAYS * back) for back in reversed(range(MONTHS))]
    rows = computed(load_settings().features, log, moments)
    rows.to_parquet(root / "snapshots.parquet", index=False, row_group_size=100_000)
    (root / "newest").write_text(newest.isoformat())


def _write_log(root: Path, rows: int) -> None:
    """`rows` predictions from the newest snapshot, over the days of the window, 100,000 a file."""
    names = _vector_columns()
    newest = pd.Timestamp((root / "newest").read_text())
    with duckdb.connect(":memory:", config={"memory_limit": "2GB", "threads": 2}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"""CREATE TABLE newest AS SELECT *, row_number() OVER () - 1 AS number
                FROM '{root / "snapshots.parquet"}'
                WHERE event_timestamp = TIMESTAMPTZ '{newest.isoformat()}'"""
        )
        [(customers,)] = connection.execute("SELECT count(*) FROM newest").fetchall()
        for day in range(DAYS):
            folder = root / "predictions" / f"date={newest + pd.Timedelta(days=day):%Y-%m-%d}"
            folder.mkdir(parents=True, exist_ok=True)
            connection.execute(
                f"""COPY (SELECT 'r' || i AS request_id, event_timestamp + INTERVAL {day} DAY
                                   + INTERVAL (1 + i % 86000) SECOND AS time,
                                 'v1' AS model_version, user_id, event_timestamp AS features_at,
                                 'ok' AS status, []::VARCHAR[] AS overridden,
                                 hash(i) % 1000 / 1000.0 AS score, {names}
                          FROM range({rows // DAYS * day}, {rows // DAYS * (day + 1)}) AS t(i)
                          JOIN newest ON number = i % {customers})
                    TO '{folder / "segment.parquet"}' (FORMAT parquet, ROW_GROUP_SIZE 100000)"""
            )


def _write_matured(root: Path, rows: int) -> None:
    """`rows` predictions, each of another customer or day, and the activity of their customers."""
    spec, newest = load_settings().features, pd.Timestamp((root / "newest").read_text())
    customers = rows // (2 * DAYS)
    for folder in (root / "matured").glob("date=*"):
        (folder / "segment.parquet").unlink()
    with duckdb.connect(":memory:", config={"memory_limit": "2GB", "threads": 2}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"""CREATE TABLE newest AS SELECT *, row_number() OVER (ORDER BY user_id) - 1 AS number
                FROM '{root / "snapshots.parquet"}'
                WHERE event_timestamp = TIMESTAMPTZ '{newest.isoformat()}'"""
        )
        [(known,)] = connection.execute("SELECT count(*) FROM newest").fetchall()
        copies = -(-customers // known)
        connection.execute(
            f"""COPY (SELECT user_id || '/' || copy AS user_id, timestamp
                      FROM '{root / "base-00000.parquet"}', range({copies}) AS t(copy))
                TO '{root / "activity.parquet"}' (FORMAT parquet)"""
        )
        for age in (*range(DAYS), *range(spec.horizon_days, spec.horizon_days + DAYS)):
            moment = newest - pd.Timedelta(days=age)
            features_at = moment - pd.Timedelta(seconds=1)
            folder = root / "matured" / f"date={moment:%Y-%m-%d}"
            folder.mkdir(parents=True, exist_ok=True)
            connection.execute(
                f"""COPY (SELECT TIMESTAMPTZ '{moment.isoformat()}' AS time, 'v1' AS model_version,
                                 user_id || '/' || (i // {known}) AS user_id,
                                 TIMESTAMPTZ '{features_at.isoformat()}' AS features_at,
                                 'ok' AS status, []::VARCHAR[] AS overridden,
                                 (hash(i + {age}) % 1000000 + 0.5) / 1000000 AS score, {_vector_columns()}
                          FROM range({customers}) AS t(i) JOIN newest ON number = i % {known})
                    TO '{folder / "segment.parquet"}' (FORMAT parquet, ROW_GROUP_SIZE 100000)"""
            )


def _vector_columns() -> str:
    """SQL: the inputs of the network, named as in the prediction log."""
    spec = load_settings().features
    stored = [f'"{feature.name}" AS "feature_{feature.name}"' for feature in spec.features]
    ratios = [
        f'"{one.numerator}"::DOUBLE / greatest("{one.denominator}", {one.floor!r}) AS "feature_{one.name}"'
        for one in spec.derived
    ]
    return ", ".join([*stored, *ratios])


if __name__ == "__main__":
    main()
