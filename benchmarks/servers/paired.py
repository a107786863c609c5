"""The current server and that of an earlier commit, in turns, at 64 clients: the ratio of throughputs.

The commit is written to --out/against/<commit> (git archive) and makes its own workspace, store, model and
archive there, by its own `churn run` from the same data; both get requests for the same customers. The cost
of calling each model is shown, since another commit may train another model. Packages are those that are
installed now.
"""

import argparse
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.servers.contestants import GATEWAY, OURS, OWN, TLS
from benchmarks.servers.ground import ROOT, Ground, Running
from benchmarks.servers.load import Target, load
from benchmarks.servers.process import NotStarted, stopped
from benchmarks.servers.turns import SETTLE_S, WARM_UP_S, rest, turn
from pipelines.live import newest_archive

CLIENTS = 64
AT_LEAST = 0.85
BATCH = 32
console = Console(stderr=True, highlight=False)


def measure(ground: Ground, options: argparse.Namespace) -> int:
    """Exit code 1 where today's throughput without TLS is below AT_LEAST of that commit's."""
    commit = _git("rev-parse", "--short", f"{options.against}^{{commit}}").decode().strip()
    tree = checked_out(commit, options.out / "against" / commit)
    with ExitStack() as stack:
        running, archives = {}, {"now": newest_archive(ground.settings.files)}
        for name in (OURS, GATEWAY):
            server, archives["then"] = stack.enter_context(of_commit(tree, name, ground))
            running[f"{commit}: {name}"] = ready(server, ground, stack)
        for name in (OURS, GATEWAY, TLS):
            running[name] = ready(stack.enter_context(OWN[name](ground)), ground, stack)
        model_us = {when: called_us(archive) for when, archive in archives.items()}
        rounds = [one_round(number, running, ground, options.seconds) for number in range(options.rounds)]
    result = {
        "against": commit,
        "clients": CLIENTS,
        "ratios": {
            "direct": ratio(rounds, OURS, f"{commit}: {OURS}"),
            "gateway": ratio(rounds, GATEWAY, f"{commit}: {GATEWAY}"),
            "gateway with TLS now, without then": ratio(rounds, TLS, f"{commit}: {GATEWAY}"),
        },
        "per_s": {name: statistics.median(turns[name] for turns in rounds) for name in running},
        f"model_us_for_{BATCH}": model_us,
        "rounds": rounds,
    }
    (options.out / f"against-{commit}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    show(result)
    held = min(result["ratios"][one]["median"] for one in ("direct", "gateway")) >= AT_LEAST
    return 0 if held else 1


def checked_out(commit: str, folder: Path) -> Path:
    """The files of that commit; what it has made there before stays."""
    if not (folder / "pyproject.toml").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", commit))) as files:
            files.extractall(folder, filter="data")
    return folder


@contextmanager
def of_commit(tree: Path, name: str, ground: Ground) -> Iterator[tuple[Running, Path]]:
    """One of that commit's contestants, and its archive. Raises NotStarted with its last line."""
    command = [sys.executable, "-P", str(Path(__file__).with_name("serve_one.py"))]
    log = tree / "serve_one.log"
    with (
        log.open("ab") as errors,
        subprocess.Popen(
            [*command, str(tree / "workspace"), name],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process,
        stopped(process),
    ):
        assert process.stdin
        assert process.stdout
        console.print(f"starting {name} of {tree.name} (its workspace takes some minutes, once)")
        process.stdin.write(json.dumps(ground.ids).encode() + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            last = log.read_text(errors="replace").strip().splitlines() or ["nothing"]
            raise NotStarted(f"{tree.name} does not serve with the packages of today: {last[-1][:300]}")
        place = json.loads(line)
        target = Target(place["url"], place["body"], tuple(place["headers"]))
        yield Running(tuple(place["pids"]), target), Path(json.loads(place["archive"])["path"])
        process.stdin.close()
        process.wait(60)


def ready(server: Running, ground: Ground, stack: ExitStack) -> Running:
    """The server after the warm-up, suspended; it is resumed before it is stopped."""
    stack.callback(turn, server)
    load(server.target, ground.ids_file, CLIENTS, WARM_UP_S)
    rest(server, ground)
    return server


def one_round(
    number: int, running: Mapping[str, Running], ground: Ground, seconds: float
) -> dict[str, float]:
    """Answered requests a second of each, in an order that changes. Raises NotStarted at a refusal."""
    order, found = list(running), {}
    random.Random(number).shuffle(order)
    for name in order:
        turn(running[name])
        load(running[name].target, ground.ids_file, CLIENTS, SETTLE_S)
        one = load(running[name].target, ground.ids_file, CLIENTS, seconds)
        rest(running[name], ground)
        if one.refused or one.broken:
            raise NotStarted(f"{name}: refused {one.refused}, cut {one.broken} of {one.requests}")
        found[name] = one.answered_per_s
        console.print(
            f"round {number + 1} {name:<40} {one.answered_per_s:8,.0f} req/s  p99 {one.p99_ms:.1f} ms"
        )
    return found


def ratio(rounds: Sequence[Mapping[str, float]], now: str, then: str) -> dict[str, float]:
    found = [turns[now] / turns[then] for turns in rounds]
    return {"median": statistics.median(found), "lowest": min(found), "highest": max(found)}


def called_us(archive: Path) -> float:
    """Microseconds of one call of an archive's program for a batch, the median of many, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with zipfile.ZipFile(archive) as content:
        bundle = json.loads(content.read("bundle.json"))
        program = torch.export.load(io.BytesIO(content.read("model.pt2"))).module()
    numbers = torch.rand(BATCH, len(bundle["numeric"]), dtype=torch.float64)
    codes = torch.zeros(BATCH, len(bundle["vocabulary"]), dtype=torch.int64)
    taken = []
    with torch.inference_mode():
        for _ in range(300):
            begun = time.perf_counter()
            program(numbers, codes)
            taken.append(time.perf_counter() - begun)
    torch.set_num_threads(threads)
    return 1e6 * statistics.median(taken[50:])


def show(result: Mapping[str, Any]) -> None:
    for name, found in result["ratios"].items():
        console.print(
            f"{name}: {found['median']:.2f} of {result['against']}'s requests a second at {CLIENTS} clients"
            f" ({found['lowest']:.2f} to {found['highest']:.2f} over {len(result['rounds'])} rounds)"
        )
    us = result[f"model_us_for_{BATCH}"]
    console.print(f"a call of the model for {BATCH} customers: {us['now']:.0f} us now, {us['then']:.0f} then")


def _git(*command: str) -> bytes:
    return subprocess.run(["git", *command], cwd=ROOT, check=True, capture_output=True).stdout
