"""Feature building by DuckDB and by Spark on one machine: seconds, CPU, peak memory; the outputs compared.

    python -m benchmarks.spark [--rows 7000000 70000000] [--memory 3g] [--minutes 30]

The logs, the three monthly snapshots with labels, and the shipped spec are those of benchmarks/features.py.
Each engine is a process of its own with two threads; DuckDB has features.memory_limit 2GB. Seconds are those
of `build_features`, so they contain the start of Spark, and no imports. Memory is the sum over the processes
of the most that each had resident. A run that takes longer than `--minutes` is stopped, and the table says
so. A difference beyond benchmarks/same_features.py ends the benchmark with an error. Results: a table,
spark.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.features import MOMENTS, feature_names, write_log
from benchmarks.same_features import compare
from core.workspace import Workspace
from features.build import build_features
from features.spec import FeaturesConfig

ROOT = Path(__file__).resolve().parent.parent
THREADS = 2
TICK_S = 0.5


def main() -> None:
    options = parse_arguments()
    if options.engine:
        build(options.engine, options.memory, options.folder)
        return
    results: list[dict[str, Any]] = []
    for rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="churn-bench-", dir=options.scratch) as folder:
            results += measure(rows, Path(folder), options)
        show(results)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "spark.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[7_000_000, 70_000_000])
    parser.add_argument("--memory", default="3g", help="heap of Spark, features.spark.memory")
    parser.add_argument("--minutes", type=float, default=30, help="after which a run is stopped")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "benchmarks")
    parser.add_argument("--scratch", type=Path, help="folder for the made logs and for spilling")
    parser.add_argument("--engine", choices=["duckdb", "spark"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(rows: int, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Write one log, and let both engines build from it. Raises Different when the results differ."""
    customers = write_log(rows, folder)
    files = Workspace(folder)
    done = {engine: run(engine, folder, options) for engine in ("duckdb", "spark")}
    if all(result["seconds"] for result in done.values()):
        ours, theirs = (folder / engine for engine in ("duckdb", "spark"))
        for file, columns in ((files.snapshots, feature_names()), (files.labels, ["churned"])):
            compare(ours / file.name, theirs / file.name, columns)
    return [{"engine": engine, "rows": rows, "customers": customers, **done[engine]} for engine in done]


def run(engine: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Build in a process of its own, and move the results to the folder `engine`."""
    command = [sys.executable, "-m", "benchmarks.spark", "--engine", engine, "--folder", str(folder)]
    command += ["--memory", options.memory]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    ends = time.monotonic() + options.minutes * 60
    peaks: dict[int, int] = {}
    cpu: dict[int, float] = {}
    try:
        while child.poll() is None and time.monotonic() < ends:
            sample(child.pid, peaks, cpu)
            time.sleep(TICK_S)
        finished = child.poll() is not None
    finally:
        for process in tree(child.pid):
            process.kill()
        child.wait()
    usage = {"peak_rss_bytes": sum(peaks.values()), "cpu_seconds": sum(cpu.values())}
    if child.returncode != 0:
        failed = f"failed ({child.returncode})" if finished else f"not done in {options.minutes:g} minutes"
        return {"seconds": None, "failed": failed, **usage}
    assert child.stdout is not None
    files = Workspace(folder)
    files.features.resolve().rename(folder / engine)
    return {**json.loads(child.stdout.read().splitlines()[-1]), **usage}


def sample(pid: int, peaks: dict[int, int], cpu: dict[int, float]) -> None:
    """Note, by process, the most memory that was resident (VmHWM), and the CPU seconds so far."""
    for process in tree(pid):
        try:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            times = process.cpu_times()
        except (psutil.Error, OSError):
            continue
        marks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
        if marks:
            peaks[process.pid] = int(marks[0]) * 1024
            cpu[process.pid] = times.user + times.system


def tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [*process.children(recursive=True), process]
    except psutil.Error:
        return []


def build(engine: str, memory: str, folder: Path) -> None:
    settings = yaml.safe_load((ROOT / "configs" / "features.yaml").read_text(encoding="utf-8"))
    settings |= {"engine": engine, "threads": THREADS}
    settings["spark"] = {"master": f"local[{THREADS}]", "memory": memory}
    spec = FeaturesConfig.model_validate(settings)
    begun = time.perf_counter()

    def progress(message: str) -> None:
        sys.stderr.write(f"{engine} {time.perf_counter() - begun:.1f} s: {message}\n")

    record = build_features(spec, Workspace(folder), as_of=MOMENTS, progress=progress)
    print(json.dumps({"seconds": time.perf_counter() - begun, "snapshot_rows": record["rows"]}))


def show(results: list[dict[str, Any]]) -> None:
    table = Table(title=f"Feature building: 3 snapshots, 21 features, labels, {THREADS} threads")
    for heading in ("rows", "customers", "engine", "seconds", "CPU seconds", "peak memory"):
        table.add_column(heading, justify="left" if heading == "engine" else "right")
    for result in results:
        table.add_row(
            f"{result['rows']:,}",
            f"{result['customers']:,}",
            result["engine"],
            f"{result['seconds']:.1f}" if result["seconds"] else result["failed"],
            f"{result['cpu_seconds']:.0f}",
            f"{result['peak_rss_bytes'] / 1024**2:,.0f} MiB",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
