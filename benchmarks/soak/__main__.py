"""Hours of everything at once on the production profile: does anything grow, slow down or get lost?

    make soak                          # an hour
    make soak ARGS="--minutes 240 --rate 20"

PostgreSQL, Redis, S3, Kafka and MLflow run on loopback, and `churn serve` behind its gateway. Customers are
asked about at a constant rate, while these take turns: a retraining with another seed and its rollout, a kill
of each store for some seconds, a new API key. Fails where memory or descriptors grow, where a request fails,
or where an answer is not in the prediction log exactly once (of each variant). Figures and plot: --out.
"""

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from benchmarks.soak.events import happen
from benchmarks.soak.load import OURS, Load
from benchmarks.soak.report import faults, growth, latencies, plot
from benchmarks.soak.sampling import Sampler
from deploy.loopback import broker
from support.servers.loopback import END, Loopback, loopback

PLAN = [{"weight": 0, "mirror": True, "min_s": 10, "max_s": 300, "min_requests": 50}] + [
    {"weight": weight, "min_s": 10, "max_s": 300, "min_requests": weight} for weight in (5, 25, 50, 100)
]
SETTINGS = (
    "tuning.trials=1",
    "model.trees=false",
    "training.epochs=2",
    "training.baselines=[base_rate, logistic_regression]",
    "training.cross_validation=1",
    f"rollout.stages={json.dumps(PLAN)}",
    "rollout.watch_s=30",
    "rollout.rehearsal=null",
    "gateway.port=0",
)
LOGGED_WITHIN_S = 120.0
CUSTOMERS = 5000
"""Asked about in turn: a rollout compares customers, not requests."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--minutes", type=float, default=60, help="of load (default: 60)")
    parser.add_argument("--rate", type=float, default=10, help="requests a second (default: 10)")
    parser.add_argument("--out", type=Path, default=Path("var/soak"), help="default: var/soak")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with loopback(SETTINGS) as stores:
        say("the first model")
        stores.succeed("run", "--no-rollout")
        listed = stores.place.folder / "customers.csv"
        stores.succeed("score", "--as-of", END, "--top", str(CUSTOMERS), "--out", str(listed))
        # in no order: a ranked list would make the customers of a rollout's watch others than those before it
        customers = pd.read_csv(listed, dtype=str)["user_id"].sample(frac=1, random_state=0).tolist()
        with stores.serving():
            server = json.loads((stores.files.serving / "server.json").read_text())["pid"]
            load = Load(stores.files, customers, given.rate)
            sampler = Sampler(server, [stores.files.root, stores.place.folder / "kafka"])
            load.start(), sampler.start()
            say(f"load of {given.rate:g} requests a second for {given.minutes:g} minutes")
            until = time.time() + 60 * given.minutes
            events = happen(stores, until, say)
            time.sleep(max(until - time.time(), 0))
            load.stop(), sampler.stop()
            answered = {one.id for one in load.answers if one.status == 200}
            log = logged(stores)
            patience = time.monotonic() + LOGGED_WITHIN_S
            while not answered <= {request for request, _ in log} and time.monotonic() < patience:
                time.sleep(1)
                log = logged(stores)
    minutes, growths = latencies(load.answers), growth(sampler.samples)
    plot(sampler.samples, minutes, events, given.out / "soak.png")
    found = faults(growths, load.answers, log, events)
    content = {
        "faults": found,
        "answers": len(load.answers),
        "outcomes": Counter(f"{one.status} {one.outcome}" for one in load.answers),
        "growth": growths.to_dict("records"),
        "minutes": minutes.reset_index().to_dict("records"),
        "events": [asdict(event) for event in events],
    }
    (given.out / "soak.json").write_text(json.dumps(content, indent=1, default=float))
    say(growths.round(1).to_string(index=False))
    say(f"p99 of a minute: median {minutes['p99_ms'].median():.0f} ms, most {minutes['p99_ms'].max():.0f} ms")
    say(f"{content['answers']:,} requests: {dict(content['outcomes'])}")
    for line in found:
        say(f"FAULT {line}")
    return 1 if found else 0


def logged(stores: Loopback) -> Counter[tuple[str, str]]:
    """Request of the load and variant -> how often the pair is in the prediction log. The canary logs the
    copies that it gets before it has a share of its own, as it does the requests of its share."""
    records = map(json.loads, stores.messages(broker.PREDICTIONS))
    found = ((record["request_id"], record["variant"]) for record in records)
    return Counter(pair for pair in found if pair[0].startswith(OURS))


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
