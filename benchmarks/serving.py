"""Our server beside its rivals: one store, one model, one machine, in turns.

    python -m benchmarks.serving [--quick] [--rounds 5 --seconds 10] [--stores sqlite] [--servers ours no-op]
    python -m benchmarks.serving --overload [--seconds 60]
    python -m benchmarks.serving --grid [--rounds 2 --seconds 4]

All servers of a store are started, checked for the right scores and warmed; then, round after round and in
an order that changes, each is measured alone: the others are stopped where they stand (SIGSTOP). wrk asks one
customer a request, another one each time. The load runs on the same cores as the server, so read ratios.
`--grid`: no-op and ours with 1 and 2 workers and batches of 8 to 64, from which the profiles were chosen.
"""

import argparse
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.servers import contestants, report
from benchmarks.servers.contestants import CONTESTANTS, Ground, Running, Start
from benchmarks.servers.load import available, load
from benchmarks.servers.process import NotStarted, freeze, thaw
from benchmarks.servers.store import opened
from data.errors import ChurnError
from data.sample import sample_user_ids
from serving.config import Batching

ROOT = Path(__file__).resolve().parent.parent
CONCURRENCY = (1, 8, 64, 256)
CUSTOMERS = 10_000
WARM_UP_S, SETTLE_S = 4, 1
GRID = [(workers, batch) for workers in (1, 2) for batch in (8, 16, 32, 64)]
OVERLOAD_CONNECTIONS = 256
RECOVERED_WITHIN_S = 2.0
console = Console(stderr=True, highlight=False)


def main() -> int:
    options = parse_arguments()
    if not available():
        console.print("skipped: wrk is not installed (Debian: apt-get install wrk)")
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    # as Ctrl-C: what was started is stopped
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.overload:
        return overload(options)
    cells: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    facts = report.machine()
    for store in options.stores:
        if store == "redis" and not shutil.which("redis-server"):
            missing[store] = "redis-server is not installed"
            continue
        cells += compare(store, options, missing, grid() if options.grid else CONTESTANTS)
        report.write(options.out, facts, cells, missing)
    report.show(cells, missing)
    console.print(f"written: {options.out}/serving.json, serving.md, serving.png")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="SQLite, 1 and 64 clients, one round of 2 s")
    parser.add_argument("--grid", action="store_true", help="workers and batch sizes, SQLite, 64 clients")
    parser.add_argument("--overload", action="store_true", help="256 clients against ours alone")
    parser.add_argument("--stores", nargs="+", choices=("sqlite", "redis"))
    parser.add_argument("--servers", nargs="+", default=[""], help="only those whose names begin so")
    parser.add_argument("--concurrency", nargs="+", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=int, help="of one measurement; of an overload 60")
    parser.add_argument("--workspace", type=Path, default=ROOT / "var" / "bench" / "serving-workspace")
    parser.add_argument("--venv", type=Path, default=ROOT / "var" / "bench" / "serving-venv")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench" / "serving")
    options = parser.parse_args()
    quick = options.quick
    alone = quick or options.overload or options.grid
    options.stores = options.stores or (["sqlite"] if alone else ["sqlite", "redis"])
    clients = [64] if options.grid else [1, 64] if quick else list(CONCURRENCY)
    options.concurrency = options.concurrency or clients
    if options.grid:
        options.out /= "grid"
    options.rounds = options.rounds or (1 if quick else 2)
    options.seconds = options.seconds or (60 if options.overload else 2 if quick else 3)
    return options


def grid() -> Mapping[str, Start]:
    found: dict[str, Start] = {}
    for workers, batch in GRID:
        batching = Batching(batch_size=batch)
        for name, start in (("no-op", contestants.noop), ("ours", contestants.ours)):
            found[f"{name}, {workers} x {batch}"] = start("throughput", workers=workers, throughput=batching)
    return found


def compare(
    store: str, options: argparse.Namespace, missing: dict[str, str], servers: Mapping[str, Start]
) -> list[dict[str, Any]]:
    """A cell a server, concurrency and round. Servers that do not start are named in `missing`."""
    with ExitStack() as stack:
        ground = prepared(store, options, stack)
        running: dict[str, Running] = {}
        for name, start in servers.items():
            if not name.lower().startswith(tuple(wanted.lower() for wanted in options.servers)):
                continue
            console.print(f"{store}: starting {name}")
            try:
                running[name] = stack.enter_context(start(ground))
            except (NotStarted, ChurnError) as error:
                missing[f"{name} ({store})"] = str(error)
                console.print(f"{store}: {name}: {error}")
                continue
            # a server must not die with its processes stopped: the exit stack runs this before its stop
            stack.callback(thaw, *running[name].pids)
            if not name.startswith("no-op"):
                check(name, running, ground)
            load(running[name].target, ground.ids_file, 64, WARM_UP_S)
            rest(running[name], ground)
        return measured(store, ground, running, options)


def prepared(store: str, options: argparse.Namespace, stack: ExitStack) -> Ground:
    settings = stack.enter_context(opened(store, options.workspace, console.print))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-serving-")))
    ground = Ground(settings, folder, options.venv, tuple(sample_user_ids(settings.data, CUSTOMERS)))
    contestants.lay(ground)
    return ground


def check(name: str, running: dict[str, Running], ground: Ground) -> None:
    """Wrong answers would win nothing: the rivals' scores are ours (the forest has its own)."""
    asked = ground.ids[:: max(1, len(ground.ids) // 20)]
    scores = [contestants.score_in(contestants.ask(running[name].target, i).json()) for i in asked]
    if len(set(scores)) < 2 or not all(0 < score < 1 for score in scores):
        raise NotStarted(f"{name}: its scores make no sense: {scores[:3]}")
    ours = next((n for n in running if n.startswith("ours") and n != name), None)
    if ours and "forest" not in name:
        thaw(*running[ours].pids)
        expected = [contestants.score_in(contestants.ask(running[ours].target, i).json()) for i in asked]
        freeze(*running[ours].pids)
        furthest = max(abs(a - b) for a, b in zip(scores, expected, strict=True))
        if furthest > 1e-6:
            raise NotStarted(f"{name}: its scores are not ours, by up to {furthest:.2g}")


def rest(server: Running, ground: Ground) -> None:
    """Stop a server once it has nothing on its way: its time-outs would run while it stands still.

    wrk hangs up on up to 256 requests when it ends; the answer to one asked after them comes last.
    """
    contestants.ask(server.target, ground.ids[0], timeout_s=60)
    time.sleep(SETTLE_S / 2)
    freeze(*server.pids)


def measured(
    store: str, ground: Ground, running: dict[str, Running], options: argparse.Namespace
) -> list[dict[str, Any]]:
    cells = []
    for turn in range(options.rounds):
        for connections in options.concurrency:
            order = list(running)
            random.Random(f"{turn} {connections}").shuffle(order)
            for name in order:
                server = running[name]
                thaw(*server.pids)
                load(server.target, ground.ids_file, connections, SETTLE_S)
                found = load(server.target, ground.ids_file, connections, options.seconds)
                statuses = (
                    load(server.target, ground.ids_file, connections, SETTLE_S, statuses=True).statuses
                    if found.refused
                    else {}
                )
                rest(server, ground)
                cells.append(
                    {
                        **{"store": store, "server": name, "concurrency": connections, "round": turn},
                        **asdict(found),
                        "per_s": found.answered_per_s,
                        "statuses": dict(statuses),
                    }
                )
                console.print(
                    f"{store} round {turn + 1} c={connections:<3} {name:<26} {found.answered_per_s:8,.0f}"
                    f" req/s  p50 {found.p50_ms:7.2f}  p99 {found.p99_ms:8.2f} ms  refused {found.refused}"
                )
    return cells


def overload(options: argparse.Namespace) -> int:
    """256 clients: what is answered, and how soon a lone request is served again. Exit code 1 if not so."""
    with ExitStack() as stack:
        ground = prepared(options.stores[0], options, stack)
        server = stack.enter_context(CONTESTANTS["ours, throughput"](ground))
        load(server.target, ground.ids_file, 64, WARM_UP_S)
        before = lone(server, ground.ids[:200])
        found = load(server.target, ground.ids_file, OVERLOAD_CONNECTIONS, options.seconds, statuses=True)
        ended = time.monotonic()
        first = contestants.ask(server.target, ground.ids[0])
        recovered_s = time.monotonic() - ended
        after = lone(server, ground.ids[:200])
    result = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "connections": OVERLOAD_CONNECTIONS,
        **asdict(found),
        "per_s": found.answered_per_s,
        "recovered_s": recovered_s,
        "lone_before_ms": before,
        "lone_after_ms": after,
    }
    allowed = {"200", "503 with Retry-After"}
    held = (
        set(found.statuses) <= allowed
        and not found.broken
        and not found.timeouts
        and first.status_code == 200
        and recovered_s < RECOVERED_WITHIN_S
        and after["p50"] < 2 * before["p50"]
    )
    report.write_overload(options.out, result | {"held": held})
    console.print(result)
    console.print("held" if held else "did not hold")
    return 0 if held else 1


def lone(server: Running, ids: Sequence[int | str]) -> dict[str, float]:
    """Latency of one request at a time, in ms."""
    taken = []
    with contestants.client(server.target) as connection:
        for user_id in ids:
            begun = time.perf_counter()
            connection.post(server.target.url, content=server.target.body % user_id)
            taken.append(1000 * (time.perf_counter() - begun))
    return {"p50": statistics.median(taken), "p99": statistics.quantiles(taken, n=100)[98]}


if __name__ == "__main__":
    raise SystemExit(main())
