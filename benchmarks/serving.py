"""Our server and its rivals: one store, one model, one machine, measured in turns.

    python -m benchmarks.serving [--quick] [--only kserve litserve] [--rounds 3 --seconds 5] [--stores sqlite]
    python -m benchmarks.serving --against COMMIT [--rounds 10]
    python -m benchmarks.serving --overload [--seconds 60]
    python -m benchmarks.serving --grid [--rounds 2 --seconds 4]

A session is ours alone, with the no-ops that show what TorchServe costs, direct and through the gateway, with
TLS and without; or a rival with each of its settings beside three of ours (`--only` names sessions: ours,
kserve, litserve, bentoml, mlflow, fastapi). Each rival is there twice: with Feast's own read, and with our
reader as a library, which separates the effect of the reader from that of the server. Settings are those that
its documentation advises for two cores (benchmarks/servers/, each module names the page).

All servers of a session are started. The scores of 200 customers, 16 at once, are compared with those of the
reference (Feast and the exported program without a server); a server that differs does not take part. Then,
round after round and in a changing order, each is measured alone, with the others suspended (SIGSTOP). wrk
requests one customer at a time, another one in each request, on the same cores as the server, so ratios are
more reliable than absolute values. Refused requests do not count as throughput. Results are medians of
rounds, with the lowest and the highest; ratios are of one round.

A session that was measured with the same code and settings is taken from --out/parts, unless --again: a run
that was stopped continues, sessions can be measured one by one, and the report contains all of them.
`--grid`: no-op and ours with 1 and 2 workers and batches of 8 to 64, from which the profiles were chosen.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.parts import Parts, digest
from benchmarks.servers import ground as grounds
from benchmarks.servers import overload, paired, report
from benchmarks.servers.contestants import SESSIONS
from benchmarks.servers.ground import ROOT, Ground, Running, Start
from benchmarks.servers.load import available, load
from benchmarks.servers.own import noop, ours
from benchmarks.servers.process import NotStarted
from benchmarks.servers.store import opened
from benchmarks.servers.turns import SETTLE_S, WARM_UP_S, rest, turn
from core.errors import ChurnError
from pipelines.live import customers_online
from serving.config import Batching

CONCURRENCY = (1, 64, 256)
CUSTOMERS = 10_000
CODE = (".py", ".lua", ".yaml", ".properties", ".txt")
GRID = [(workers, batch) for workers in (1, 2) for batch in (8, 16, 32, 64)]
console = Console(stderr=True, highlight=False)


def main() -> int:
    options = parse_arguments()
    if not available():
        console.print("skipped: wrk is not installed (Debian: apt-get install wrk)")
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    # as Ctrl-C: what was started is stopped
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ExitStack() as stack:
        if options.overload:
            return overload.measure(prepared(options.stores[0], options, stack), options)
        if options.against:
            return paired.measure(prepared("sqlite", options, stack), options)
    sessions = {"grid": grid()} if options.grid else SESSIONS
    parts = Parts(options.out / "parts", made_by(options), options.again)
    for store in options.stores:
        if store == "redis" and not shutil.which("redis-server"):
            console.print("redis-server is not installed, left out")
            continue
        for name in [name for name in sessions if name in options.only]:
            parts.part(f"{store} {name}", lambda s=store, n=name: session(s, n, sessions[n], options))
    found = [parts.taken(f"{store} {name}") for store in options.stores for name in sessions]
    cells = [cell for one in found if one for cell in one["cells"]]
    missing = {name: why for one in found if one for name, why in one["missing"].items()}
    report.write(options.out, report.machine(), cells, missing)
    report.show(cells, missing)
    console.print(f"written: {options.out}/serving.json, serving.md")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="SQLite, 1 and 64 clients, one round of 2 s")
    parser.add_argument("--grid", action="store_true", help="workers and batch sizes, SQLite, 64 clients")
    parser.add_argument("--overload", action="store_true", help="256 clients against ours alone")
    parser.add_argument("--against", metavar="COMMIT", help="ours of today beside ours of that commit")
    parser.add_argument("--only", nargs="+", default=[*SESSIONS, "grid"], help="these sessions")
    parser.add_argument("--again", action="store_true", help="take no session of an earlier run")
    parser.add_argument("--stores", nargs="+", choices=("sqlite", "redis"))
    parser.add_argument("--concurrency", nargs="+", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=int, help="of one measurement; of an overload 60")
    parser.add_argument("--workspace", type=Path, default=ROOT / "var" / "bench" / "serving-workspace")
    parser.add_argument("--venv", type=Path, default=ROOT / "var" / "bench" / "serving-venv")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench" / "serving")
    return with_defaults(parser.parse_args())


def with_defaults(options: argparse.Namespace) -> argparse.Namespace:
    alone = options.quick or options.overload or options.grid
    options.stores = options.stores or (["sqlite"] if alone else ["sqlite", "redis"])
    clients = [64] if options.grid else [1, 64] if options.quick else list(CONCURRENCY)
    options.concurrency = options.concurrency or clients
    if options.quick or options.grid:
        options.out /= "quick" if options.quick else "grid"
    rounds = 1 if options.quick else 10 if options.against else 3
    options.rounds = options.rounds or rounds
    options.seconds = options.seconds or (60 if options.overload else 2 if options.quick else 5)
    return options


def made_by(options: argparse.Namespace) -> str:
    """Of the servers' code and of how they were measured. A commit that changes neither changes nothing."""
    rooms = ("benchmarks/servers", "handlers", "serving", "configs/gateway", "configs/torchserve")
    code = [file for room in rooms for file in (ROOT / room).rglob("*") if file.suffix in CODE]
    code += [ROOT / "configs" / name for name in ("serving.yaml", "gateway.yaml", "features.yaml")]
    return digest(code, f"{options.concurrency} {options.rounds} {options.seconds}")


def grid() -> Mapping[str, Start]:
    found: dict[str, Start] = {}
    for workers, batch in GRID:
        batching = Batching(batch_size=batch)
        found[f"no-op, {workers} x {batch}"] = noop("throughput", workers=workers, throughput=batching)
        found[f"ours, {workers} x {batch}"] = ours("throughput", workers=workers, throughput=batching)
    return found


def prepared(store: str, options: argparse.Namespace, stack: ExitStack) -> Ground:
    settings = stack.enter_context(opened(store, options.workspace, console.print))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-serving-")))
    # some customers of the source are not eligible, and so not online
    ground = Ground(settings, folder, options.venv, tuple(customers_online(settings, CUSTOMERS)))
    grounds.lay(ground)
    return ground


def session(
    store: str, session_name: str, servers: Mapping[str, Start], options: argparse.Namespace
) -> dict[str, Any]:
    """`cells`: one a server, concurrency and round. `missing`: who did not start, or answered otherwise."""
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        ground = prepared(store, options, stack)
        expected = grounds.reference(ground)
        running: dict[str, Running] = {}
        for name, start in servers.items():
            console.print(f"{store}: starting {name}")
            try:
                running[name] = admitted(name, start, ground, expected, stack)
            except (NotStarted, ChurnError, subprocess.SubprocessError) as error:
                missing[f"{name} ({store})"] = str(error)
                console.print(f"{store}: {name}: {error}")
        cells = measured(ground, running, options)
    where = {"store": store, "session": session_name}
    return {"cells": [where | cell for cell in cells], "missing": missing}


def admitted(name: str, start: Start, ground: Ground, expected: list[float], stack: ExitStack) -> Running:
    """A server that was started, has the right scores, is warm, and is suspended until its turn."""
    with ExitStack() as own:
        server = own.enter_context(start(ground))
        # a server must not die with its processes stopped: the exit stack runs this before its stop
        own.callback(turn, server)
        if not name.startswith("no-op"):
            grounds.check(ground, server.target, expected)
        load(server.target, ground.ids_file, 64, WARM_UP_S)
        rest(server, ground)
        stack.enter_context(own.pop_all())
    return server


def measured(
    ground: Ground, running: Mapping[str, Running], options: argparse.Namespace
) -> list[dict[str, Any]]:
    cells = []
    for number in range(options.rounds):
        for connections in options.concurrency:
            order = list(running)
            random.Random(f"{number} {connections}").shuffle(order)
            for name in order:
                server = running[name]
                turn(server)
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
                        **{"server": name, "concurrency": connections, "round": number},
                        **asdict(found),
                        "per_s": found.answered_per_s,
                        "statuses": dict(statuses),
                    }
                )
                console.print(
                    f"round {number + 1} c={connections:<3} {name:<46} {found.answered_per_s:8,.0f}"
                    f" req/s  p50 {found.p50_ms:7.2f}  p99 {found.p99_ms:8.2f} ms  refused {found.refused}"
                )
    return cells


if __name__ == "__main__":
    raise SystemExit(main())
