"""The server's feature read beside Feast's own.

    python -m benchmarks.online_read [--stores sqlite redis] [--ids 1 16 64 1000] [--seconds 20]

The shipped feature spec, 10,000 synthetic customers that Feast itself puts online and that are then, in
SQLite, packed as `churn features materialize` does; one process and thread. Both read the same customers,
drawn again for each pair, in alternating order. Before the measurement both read every customer once, as a
server does that has run for a while. Ours is all of `OnlineFeatures.read`: values, derived features,
freshness, policies, and the copy of the last values for an outage of the store. Theirs is
`get_online_features` and `to_dict`, which check no freshness. Every pair is compared value by value. Results
are the wall time and the ratio of CPU time, which other processes disturb less. Results: a table,
online_read.json.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from rich.console import Console
from rich.table import Table

from core.workspace import Workspace
from features.lean_feast import FeatureStore
from features.spec import FeaturesConfig
from features.store import apply, pack, serving_environment, serving_yaml
from handlers.bundle import Bundle
from handlers.identity import mask
from handlers.store.opening import open_features
from handlers.store.reader import OnlineFeatures

ROOT = Path(__file__).resolve().parent.parent
CUSTOMERS = 10_000
NOW = datetime(2026, 11, 22, tzinfo=UTC)
MOST_PAIRS = 2_000
WARM_UP_IDS = 500
"""Customers of one read before the clock runs."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stores", nargs="+", default=["sqlite", "redis"], choices=["sqlite", "redis"])
    parser.add_argument("--ids", type=int, nargs="+", default=[1, 16, 64, 1000])
    parser.add_argument("--seconds", type=float, default=20.0, help="for each store and number of ids")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    results = []
    for store in options.stores:
        with (
            tempfile.TemporaryDirectory(prefix="churn-bench-") as folder,
            online_store(store, folder) as online,
        ):
            if online is None:
                print(f"{store}: redis-server is not installed, left out")
                continue
            theirs, ours, spec = filled(Path(folder), online)
            results += [measure(store, theirs, ours, spec, ids, options.seconds) for ids in options.ids]
            ours.close()
    show(results)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "online_read.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


@contextmanager
def online_store(kind: str, folder: str) -> Iterator[dict[str, Any] | None]:
    """Feast's block for an empty store; a Redis of our own on a port that the system chooses."""
    if kind == "sqlite":
        yield {"type": "sqlite", "path": "online.db"}
        return
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            wait_for(port)
            yield {"type": "redis", "connection_string": f"127.0.0.1:{port}"}
        finally:
            server.kill()


def wait_for(port: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(16).startswith(b"+PONG"):
                    return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError("redis-server does not answer")


def filled(folder: Path, online: dict[str, Any]) -> tuple[FeatureStore, OnlineFeatures, FeaturesConfig]:
    """The store as Feast opens it, and as the server does."""
    shipped = yaml.safe_load((ROOT / "configs" / "features.yaml").read_text(encoding="utf-8"))
    spec = FeaturesConfig.model_validate(shipped | {"online_store": online})
    files = Workspace(folder / "var")
    files.feast.mkdir(parents=True)
    files.snapshots.parent.mkdir(parents=True)
    table = customers(spec)
    table.to_parquet(files.snapshots)
    store = apply(spec, files)
    for start in range(0, len(table), 5000):
        store.write_to_online_store(spec.view, df=table.iloc[start : start + 5000])
    pack(spec, files)
    (folder / "feature_store.yaml").write_text(serving_yaml(spec, files), encoding="utf-8")
    bundle = Bundle(
        model_version="benchmark",
        program=Path("none"),
        join_key="user_id",
        id_type="integer",
        spec=spec.contract(),
        spec_digest=spec.digest(),
        numeric=spec.numeric,
        vocabulary={},
        threshold=0.5,
    )
    environment = {**os.environ, **serving_environment(spec, files), "CHURN_STORE_TIMEOUT_MS": "60000"}
    return store, open_features(folder, bundle, environment), spec


def customers(spec: FeaturesConfig) -> pd.DataFrame:
    """Whole numbers of one and two bytes, fractions, and a fifth of nulls where the spec has no default."""
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {
        "user_id": [mask(str(number), b"benchmark") for number in range(CUSTOMERS)],
        "event_timestamp": pd.to_datetime(NOW - timedelta(days=1)),
        "created_timestamp": pd.to_datetime(NOW),
    }
    for feature in spec.features:
        if feature.dtype == "int64":
            columns[feature.name] = rng.geometric(0.05, CUSTOMERS)
        else:
            values = rng.gamma(2, 20, CUSTOMERS)
            if feature.default is None:
                values[rng.random(CUSTOMERS) < 0.2] = np.nan
            columns[feature.name] = values
    return pd.DataFrame(columns)


def measure(
    kind: str, store: FeatureStore, ours: OnlineFeatures, spec: FeaturesConfig, count: int, seconds: float
) -> dict[str, Any]:
    """Medians of interleaved pairs, in milliseconds, and of the ratios within the pairs."""
    service = store.get_feature_service(spec.service)
    rng = np.random.default_rng(count)
    known = [mask(str(number), b"benchmark") for number in range(CUSTOMERS)]
    names = (*spec.numeric, *spec.categorical)

    def by_feast(ids: list[str]) -> tuple[float, float, Any]:
        began, busy = time.perf_counter(), time.process_time()
        rows = [{"user_id": user_id} for user_id in ids]
        answer = store.get_online_features(features=service, entity_rows=rows).to_dict()
        return time.perf_counter() - began, time.process_time() - busy, answer

    def by_us(ids: list[str]) -> tuple[float, float, Any]:
        began, busy = time.perf_counter(), time.process_time()
        vectors = ours.read(ids, NOW)
        columns = {name: vectors.columns[name] for name in names}  # as Python's values, like to_dict's
        taken, worked = time.perf_counter() - began, time.process_time() - busy
        assert set(vectors.status) == {"ok"}, "freshness"
        return taken, worked, columns

    for start in range(0, CUSTOMERS, WARM_UP_IDS):
        part = known[start : start + WARM_UP_IDS]
        by_feast(part)
        by_us(part)
    pairs: list[tuple[float, float]] = []
    busy_ratios: list[float] = []
    started = time.monotonic()
    while time.monotonic() - started < seconds and len(pairs) < MOST_PAIRS:
        ids = [known[number] for number in rng.choice(CUSTOMERS, count, replace=False)]
        if len(pairs) % 2:
            (slow, slow_cpu, theirs), (quick, quick_cpu, mine) = by_feast(ids), by_us(ids)
        else:
            (quick, quick_cpu, mine), (slow, slow_cpu, theirs) = by_us(ids), by_feast(ids)
        for name in names:
            assert list(mine[name]) == theirs[name], f"{name} differs"
        pairs.append((quick, slow))
        busy_ratios.append(slow_cpu / quick_cpu)
    return {
        "store": kind,
        "ids": count,
        "features": len(names),
        "pairs": len(pairs),
        "ours_ms": statistics.median(quick for quick, _ in pairs) * 1000,
        "feast_ms": statistics.median(slow for _, slow in pairs) * 1000,
        "ratio": statistics.median(slow / quick for quick, slow in pairs),
        "cpu_ratio": statistics.median(busy_ratios),
        "load": os.getloadavg()[0],
    }


def show(results: list[dict[str, Any]]) -> None:
    table = Table("store", "ids", "ours, ms", "Feast, ms", "Feast / ours", "of CPU time", "pairs", "load")
    for row in results:
        table.add_row(
            row["store"],
            f"{row['ids']:,}",
            f"{row['ours_ms']:.3f}",
            f"{row['feast_ms']:.3f}",
            f"{row['ratio']:.1f}",
            f"{row['cpu_ratio']:.1f}",
            str(row["pairs"]),
            f"{row['load']:.1f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
