"""How feature building scales.

    python -m benchmarks.features [--rows 70000 700000 7000000] [--seventy-million]

Synthetic logs (10 purchases a customer on average), three monthly snapshots with labels, the shipped feature
spec. Every case runs in a separate process with a limit of 4 GiB, in turns, `--repeats` times; the result is
the median. DuckDB spills to disk above 1 GB. The same features are computed by pandas groupby, up to 7
million rows; the outputs are compared, and a difference ends the benchmark with an error. Imports are not
measured. Results: a table, features.json, features.png.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.same_features import compare
from core.workspace import Workspace
from features.build import build_features
from features.spec import FeaturesConfig

ROOT = Path(__file__).resolve().parent.parent
PROCESS_BYTES = 4 * 1024**3
PANDAS_UP_TO = 7_000_000
ELIGIBLE_DAYS = 365
"""What `eligible: auto` of the shipped spec means."""
START, END = datetime(2022, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)
MOMENTS = [datetime(2023, month, 1, tzinfo=UTC) for month in (7, 8, 9)]


def main() -> None:
    options = parse_arguments()
    if options.case:
        run_case(options.case, options.folder)
        return
    sizes = [*options.rows, *([70_000_000] if options.seventy_million else [])]
    results = []
    for rows in sizes:
        with tempfile.TemporaryDirectory(prefix="churn-bench-", dir=options.scratch) as folder:
            results += measure(rows, Path(folder), options.repeats)
    show(results)
    save(results, options.out)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[70_000, 700_000, 7_000_000])
    parser.add_argument("--repeats", type=int, default=3, help="of each case")
    parser.add_argument("--seventy-million", action="store_true", help="add a log of 70 million rows")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "benchmarks")
    parser.add_argument("--scratch", type=Path, help="where the synthetic logs lie meanwhile (default: temp)")
    parser.add_argument("--case", choices=["duckdb", "pandas"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(rows: int, folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Write one log, then run every case on it in turns, each in its own process.

    Raises Different when they did not build the same tables.
    """
    customers = write_log(rows, folder)
    cases = ["duckdb", "pandas"] if rows <= PANDAS_UP_TO else ["duckdb"]
    turns = [
        {case: run_limited(case, folder) for case in (cases if turn % 2 else cases[::-1])}
        for turn in range(repeats)
    ]
    done = {case: middle([turn[case] for turn in turns]) for case in cases}
    if all(found["seconds"] for found in done.values()) and len(cases) > 1:
        files = Workspace(folder)
        compare(files.snapshots, files.root / "pandas_snapshots.parquet", feature_names())
        compare(files.labels, files.root / "pandas_labels.parquet", ["churned"])
    return [{"case": case, "rows": rows, "customers": customers, **done[case]} for case in cases]


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of the seconds, with the lowest and the highest; the largest peak."""
    seconds = [run["seconds"] for run in runs if run["seconds"]]
    last = {**runs[-1], "peak_rss_bytes": max(run["peak_rss_bytes"] for run in runs)}
    if len(seconds) < len(runs):
        return {**last, "seconds": None, "failed": next(run["failed"] for run in runs if not run["seconds"])}
    return {**last, "seconds": statistics.median(seconds), "spread": [min(seconds), max(seconds)]}


def feature_names() -> list[str]:
    spec = yaml.safe_load((ROOT / "configs" / "features.yaml").read_text(encoding="utf-8"))
    return [str(feature["name"]) for feature in spec["features"]]


def run_limited(case: str, folder: Path) -> dict[str, Any]:
    """Run a case under the memory limit. Seconds exclude starting Python and its imports; the peak is all of
    the process."""
    command = [sys.executable, "-m", "benchmarks.features", "--case", case, "--folder", str(folder)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=limit_memory)
    assert child.stdout is not None
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        return {"seconds": None, "peak_rss_bytes": usage.ru_maxrss * 1024, "failed": child.returncode}
    return {**json.loads(output), "peak_rss_bytes": usage.ru_maxrss * 1024}


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (PROCESS_BYTES, PROCESS_BYTES))


def run_case(case: str, folder: Path) -> None:
    files = Workspace(folder)
    if case == "pandas":
        # outside the clock, as DuckDB's import is
        import_module("pandas")
        import_module("pyarrow.parquet")
    begun = time.perf_counter()
    rows = build_by_duckdb(files) if case == "duckdb" else build_by_pandas(files)
    json.dump({"seconds": time.perf_counter() - begun, "snapshot_rows": rows}, sys.stdout)


def build_by_duckdb(files: Workspace) -> int:
    spec = yaml.safe_load((ROOT / "configs" / "features.yaml").read_text(encoding="utf-8"))
    config = FeaturesConfig.model_validate(spec | {"memory_limit": "1GB"})
    return int(build_features(config, files, as_of=MOMENTS, progress=lambda _: None)["rows"])


def build_by_pandas(files: Workspace) -> int:
    """What one would write in a notebook: the same columns, one groupby a snapshot."""
    import pandas as pd

    log = pd.read_parquet(files.records)
    log["gap_days"] = log.groupby("user_id")["timestamp"].diff() / pd.Timedelta(days=1)
    log["day"] = log["timestamp"].dt.floor("D")
    snapshots, labels = [], []
    for as_of in MOMENTS:
        seen = log[log["timestamp"] < as_of]
        age = (as_of - seen["timestamp"]) / pd.Timedelta(days=1)
        customers = seen.assign(age=age).groupby("user_id")
        table = customers.agg(
            total_purchases=("amount", "size"),
            avg_purchase_amount=("amount", "mean"),
            tenure_months=("age", "max"),
            recency_days=("age", "min"),
            active_days=("day", "nunique"),
            total_spend=("amount", "sum"),
            max_purchase_amount=("amount", "max"),
            total_quantity=("quantity", "sum"),
            gap_mean_days=("gap_days", "mean"),
            gap_std_days=("gap_days", "std"),
            gap_max_days=("gap_days", "max"),
        )
        table = table[table["recency_days"] <= ELIGIBLE_DAYS]
        table["tenure_months"] /= 30.4375
        table["recency_to_gap"] = table["recency_days"] / table["gap_mean_days"].clip(lower=1).fillna(1)
        for days in (14, 30, 60, 90, 180, 365):
            recent = seen[age <= days].groupby("user_id")["amount"]
            table[f"orders_{days}d"] = recent.size().reindex(table.index, fill_value=0)
            if days in (30, 90, 180):
                table[f"spend_{days}d"] = recent.sum().reindex(table.index, fill_value=0.0)
        snapshots.append(table.assign(event_timestamp=as_of).reset_index())
        after = log[(log["timestamp"] >= as_of) & (log["timestamp"] < as_of + timedelta(days=90))]
        came_back = table.index.isin(after["user_id"].unique())
        labels.append(pd.DataFrame({"user_id": table.index, "event_timestamp": as_of, "churned": ~came_back}))
    built = pd.concat(snapshots)
    built.to_parquet(files.root / "pandas_snapshots.parquet")
    pd.concat(labels).to_parquet(files.root / "pandas_labels.parquet")
    return len(built)


def write_log(rows: int, folder: Path) -> int:
    """About `rows` purchases as `churn ingest` would leave them; returns the number of customers.

    Purchase counts are exponential; ids (spread as masked ones are) and times ascend as they are made,
    so that nothing needs sorting.
    """
    files = Workspace(folder)
    files.records.mkdir(parents=True)
    part = files.records / "base-000.parquet"
    span_us = int((END - START) / timedelta(microseconds=1))
    customers = rows // 10
    with duckdb.connect(":memory:", config={"memory_limit": "1GB", "threads": 2}) as connection:
        connection.execute("SELECT setseed(0.5)")
        connection.execute(f"""
            COPY (
                SELECT printf('u_%08x%024x', customer * {2**32 // customers}, customer) AS user_id,
                       make_timestamptz({int(START.timestamp() * 1e6)}
                           + ((purchase + (hash(customer, purchase) % 1000) / 1000.0)
                              / purchases * {span_us})::BIGINT) AS timestamp,
                       round(1 + (hash(purchase, customer, 1) % 10000) / 100.0, 2) AS amount,
                       (1 + hash(customer, purchase, 2) % 5)::DOUBLE AS quantity
                FROM (SELECT customer, purchases, unnest(range(purchases)) AS purchase
                      FROM (SELECT range AS customer,
                                   greatest(1, round(-10 * ln((1 + hash(range) % 100000) / 100001.0)))::BIGINT
                                       AS purchases
                            FROM range({customers}))))
            TO '{part}' (FORMAT parquet)""")
        written = connection.execute(f"SELECT count(*) FROM '{part}'").fetchall()[0][0]
    files.manifest.write_text(
        json.dumps(
            {
                "shape": "transactions",
                "rows": written,
                "window": {"start": START.isoformat(), "end": END.isoformat()},
            }
        ),
        encoding="utf-8",
    )
    return customers


def show(results: list[dict[str, Any]]) -> None:
    table = Table(title="Feature building: 3 snapshots, 21 features, labels")
    for heading in ("rows", "customers", "by", "seconds", "rows a second", "peak RSS"):
        table.add_column(heading, justify="left" if heading == "by" else "right")
    for result in results:
        seconds = result["seconds"]
        table.add_row(
            f"{result['rows']:,}",
            f"{result['customers']:,}",
            result["case"],
            f"{seconds:.2f} ({result['spread'][0]:.2f} to {result['spread'][1]:.2f})"
            if seconds
            else f"failed ({result['failed']})",
            f"{result['rows'] / seconds:,.0f}" if seconds else "",
            f"{result['peak_rss_bytes'] / 1024**2:,.0f} MiB",
        )
    Console().print(table)


def save(results: list[dict[str, Any]], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    out.mkdir(parents=True, exist_ok=True)
    (out / "features.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for case in ("duckdb", "pandas"):
        done = [result for result in results if result["case"] == case and result["seconds"]]
        rows = [result["rows"] for result in done]
        axes[0].loglog(rows, [result["seconds"] for result in done], marker="o", label=case)
        axes[1].semilogx(
            rows, [result["peak_rss_bytes"] / 1024**3 for result in done], marker="o", label=case
        )
    axes[0].set(title="Time", xlabel="purchases", ylabel="seconds")
    axes[1].axhline(PROCESS_BYTES / 1024**3, color="grey", linestyle=":", label="limit")
    axes[1].set(title="Peak memory", xlabel="purchases", ylabel="GiB", ylim=(0, None))
    axes[0].legend()
    axes[1].legend()
    figure.savefig(out / "features.png", dpi=120)
    Console().print(f"{out / 'features.json'}, {out / 'features.png'}")


if __name__ == "__main__":
    main()
