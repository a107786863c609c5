"""What Envoy in a pod costs: the serving image's process 1 without a container, asked at two ports in turn.

    make bench-pod                     # the workspace of `make run`
    make bench-pod ARGS="--rounds 9 --seconds 10"

In front is the port that a pod offers; TorchServe's own is behind it, on loopback. Both have the same worker,
so that the difference is Envoy alone. wrk asks about the workspace's customers; medians of the rounds.
"""

import argparse
import re
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import psutil

from benchmarks.servers.ground import clock_of
from benchmarks.servers.load import Load, Target, available, load
from churn.settings import Settings, load_settings
from features.store import serving_environment
from pipelines.live import customers_online, newest_archive
from support.servers.container import Container

CUSTOMERS = 2000
PLACES = ("in front", "TorchServe")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pod", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--rounds", type=int, default=7, help="of both ports in turn (default: 7)")
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement (default: 6)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64], help="default: 1 16 64")
    given = parser.parse_args()
    if not available():
        sys.stdout.write("skipped: wrk is not installed (Debian: apt-get install wrk)\n")
        return 0
    settings = load_settings()
    with tempfile.TemporaryDirectory(prefix="churn-pod-") as scratch:
        folder = Path(scratch)
        ids = folder / "ids"
        ids.write_text("".join(f"{one}\n" for one in customers_online(settings, CUSTOMERS)), encoding="utf-8")
        container = Container(newest_archive(settings.files), folder)
        with container.running(variables(settings), str(ids.read_text().split()[0])) as server:
            behind = re.search(r"^inference_address=(\S+)$", container.written, re.MULTILINE)
            assert behind is not None
            urls = dict(zip(PLACES, (container.url, behind[1]), strict=True))
            children = psutil.Process(server.pid).children(recursive=True)
            [envoy] = [one for one in children if one.name() == "envoy"]
            others = [one for one in children if one.pid != envoy.pid]
            for clients in given.clients:
                before = [cpu_s([envoy]), cpu_s(others)]
                answered = compare(urls, ids, clients, given.rounds, given.seconds)
                spent = [cpu_s([envoy]) - before[0], cpu_s(others) - before[1]]
                # unlike times, this hardly depends on what else the machine does
                sys.stdout.write(
                    f"{clients:>3} clients  processor time of a request:"
                    f" Envoy {1e6 * spent[0] / answered['in front']:.0f} us,"
                    f" TorchServe and its worker {1e6 * spent[1] / sum(answered.values()):.0f} us\n"
                )
            sys.stdout.write(f"Envoy's memory: {envoy.memory_info().rss / 1e6:.0f} MB\n")
    return 0


def cpu_s(processes: list[psutil.Process]) -> float:
    return sum(sum(one.cpu_times()[:2]) for one in processes)


def compare(urls: dict[str, str], ids: Path, clients: int, rounds: int, seconds: float) -> dict[str, int]:
    """Prints the medians; returns the number of answers at each place."""
    found: dict[str, list[Load]] = {place: [] for place in PLACES}
    for number in range(rounds):
        for place in PLACES[:: 1 if number % 2 == 0 else -1]:
            target = Target(f"{urls[place]}/v1/models/churn:predict", '{"instances": [{"user_id": %s}]}')
            found[place].append(load(target, ids, clients, seconds))
    for place, loads in found.items():
        failed = sum(one.refused + one.broken + one.timeouts for one in loads)
        median = {
            name: statistics.median(getattr(one, name) for one in loads)
            for name in ("answered_per_s", "p50_ms", "p99_ms")
        }
        sys.stdout.write(
            f"{clients:>3} clients  {place:<10}  {median['answered_per_s']:>8,.0f} a second"
            f"  p50 {median['p50_ms']:.2f} ms  p99 {median['p99_ms']:.2f} ms  {failed} failed\n"
        )
    return {place: sum(one.requests for one in loads) for place, loads in found.items()}


def variables(settings: Settings) -> dict[str, str]:
    """What a worker needs: the store's addresses, the key that masks, and the end of the log as the time."""
    return {
        **serving_environment(settings.features, settings.files),
        "CHURN_MASK_KEY_FILE": str(settings.files.mask_key),
        "CHURN_CLOCK_OFFSET_S": str((clock_of(settings) - datetime.now(UTC)).total_seconds()),
    }


if __name__ == "__main__":
    sys.exit(main())
