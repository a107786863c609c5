"""Time and memory of ingest, of appending 1 %, and of building features, by the number of rows.

    python -m benchmarks.ingest [--rows 7000000] [--kinds parquet csv] [--scratch DIR]

A synthetic log of four columns (customer, time, amount, quantity; 50 purchases a customer), unsorted, as CSV
and as Parquet. Every command is `churn` itself in a separate process; the peak is that of the whole process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
ROWS_A_CHUNK = 1_000_000
PURCHASES_A_CUSTOMER = 50
START, DAYS = np.datetime64("2022-01-01T00:00:00"), 730


def main() -> None:
    options = parse_arguments()
    results = []
    for rows in options.rows:
        for kind in options.kinds:
            with tempfile.TemporaryDirectory(prefix="churn-bench-", dir=options.scratch) as folder:
                results += measure(rows, kind, Path(folder))
                show(results)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "ingest.json").write_text(json.dumps(results, indent=2), encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[7_000_000])
    parser.add_argument("--kinds", choices=["parquet", "csv"], nargs="+", default=["parquet", "csv"])
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "benchmarks")
    parser.add_argument("--scratch", type=Path, help="where the logs lie meanwhile (default: temp)")
    return parser.parse_args()


def measure(rows: int, kind: str, folder: Path) -> list[dict[str, Any]]:
    log, delivery = folder / f"log.{kind}", folder / f"delivery.{kind}"
    write_log(log, kind, rows, rows // PURCHASES_A_CUSTOMER, START, DAYS, seed=0)
    after = START + np.timedelta64(DAYS, "D")
    write_log(delivery, kind, rows // 100, rows // PURCHASES_A_CUSTOMER, after, 7, seed=1)
    settings = [
        *(f"workspace={folder}/var", "data.shape=transactions", "features.memory_limit=1GB"),
        f"data.source={{kind: {kind}, uri: {log}, user_id_type: integer, columns: {{user_id: customer,"
        " timestamp: ordered_at, amount: total, quantity: items}}",
        "data.source.duplicates=keep",
    ]
    commands = {
        "ingest": ["ingest"],
        "append 1 %": ["ingest", "--append", str(delivery)],
        "features build": ["features", "build", "--as-of", "2023-07-01", "2023-08-01", "2023-09-01"],
    }
    return [
        {"rows": rows, "kind": kind, "command": name, **run(command, settings)}
        for name, command in commands.items()
    ]


def run(command: list[str], settings: list[str]) -> dict[str, Any]:
    overrides = [part for setting in settings for part in ("--set", setting)]
    begun = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "churn", *command, *overrides],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "CHURN_MASK_KEY": "benchmark " * 4},
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - begun
    return {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_rss_bytes": usage.ru_maxrss * 1024,
        "exit_code": child.returncode,
    }


def write_log(
    file: Path, kind: str, rows: int, customers: int, start: np.datetime64, days: int, seed: int
) -> None:
    """In no order of customers or times, as a shop's database exports its table."""
    rng = np.random.default_rng(seed)
    schema = pa.schema(
        [
            ("customer", pa.int64()),
            ("ordered_at", pa.timestamp("s")),
            ("total", pa.float64()),
            ("items", pa.int64()),
        ]
    )
    writer = pq.ParquetWriter(file, schema) if kind == "parquet" else pc.CSVWriter(file, schema)
    with writer:
        for first in range(0, rows, ROWS_A_CHUNK):
            n = min(ROWS_A_CHUNK, rows - first)
            seconds = rng.integers(0, days * 86_400, n).astype("timedelta64[s]")
            columns = [
                rng.integers(1, customers + 1, n),
                start + seconds,
                rng.gamma(2, 20, n).round(2),
                rng.integers(1, 5, n),
            ]
            writer.write_table(pa.table(dict(zip(schema.names, columns, strict=True)), schema))


def show(results: list[dict[str, Any]]) -> None:
    table = Table(title="Ingest: 4 columns, 50 purchases a customer")
    for heading in ("rows", "source", "command", "seconds", "CPU", "of ingest", "peak RSS"):
        table.add_column(heading, justify="left" if heading in ("source", "command") else "right")
    whole = {(r["rows"], r["kind"]): r["seconds"] for r in results if r["command"] == "ingest"}
    for r in results:
        share = r["seconds"] / whole[r["rows"], r["kind"]]
        seconds = f"{r['seconds']:.1f}" if r["exit_code"] == 0 else f"failed ({r['exit_code']})"
        memory = f"{r['peak_rss_bytes'] / 1024**2:,.0f} MiB"
        cells = (f"{r['rows']:,}", r["kind"], r["command"], seconds)
        table.add_row(*cells, f"{r['cpu_seconds']:.1f}", f"{share:.1%}", memory)
    Console().print(table)


if __name__ == "__main__":
    main()
