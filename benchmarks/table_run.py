"""How long a labelled table takes from the file to a promoted canary: `churn init`, then `churn run`.

    python -m benchmarks.table_run [--rows 10000]

The table is synthetic, as of a bank: ten columns, an outcome by smooth terms and conditions. Measure on an
idle machine. The seconds of each step and the network's test metrics are printed.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

ROOT = Path(__file__).resolve().parent.parent


def bank(rows: int, seed: int = 5) -> pd.DataFrame:
    """customer_id, ten columns, and `exited` (0 or 1)."""
    draw = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "customer_id": np.arange(15_000_000, 15_000_000 + rows),
            "score": draw.normal(650, 97, rows),
            "country": draw.choice(["F", "G", "S"], rows, p=[0.5, 0.25, 0.25]),
            "age": draw.gamma(14, 2.8, rows).clip(18, 92),
            "tenure": draw.integers(0, 10, rows),
            "balance": np.where(draw.random(rows) < 0.36, 0, draw.normal(120e3, 30e3, rows)),
            "products": draw.choice([1, 2, 3, 4], rows, p=[0.5, 0.46, 0.03, 0.01]),
            "card": draw.random(rows) < 0.7,
            "active": draw.random(rows) < 0.5,
            "salary": draw.uniform(0, 2e5, rows),
            "tickets": draw.poisson(1, rows),
        }
    )
    logit = -2.6 + 0.9 * ((table["age"] - 38) / 10).clip(-1.5, 2.2) + 0.9 * (table["country"] == "G")
    logit += np.select([table["products"] == 2, table["products"] >= 3], [-1.5, 2.8], 0.3)
    logit += 0.3 * (table["balance"] > 0) - 1.1 * (table["active"] & (table["age"] > 40))
    return table.assign(exited=(draw.random(rows) < expit(logit)).astype(int))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="churn-bench-") as scratch:
        folder = Path(scratch)
        bank(options.rows).to_csv(folder / "bank.csv", index=False)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "CHURN_MASK_KEY": secrets.token_hex(32)}

        def churn(*arguments: str) -> float:
            began = time.perf_counter()
            command = [sys.executable, "-m", "churn", *arguments]
            subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
            return time.perf_counter() - began

        churn("init", "bank.csv", "--yes", "--out", "overlay.yaml")
        seconds = churn("run", "--config", "overlay.yaml", "--set", f"workspace={folder / 'var'}")
        record = json.loads((folder / "var" / "run.json").read_text())
    print(f"{options.rows:,} rows: churn run took {seconds:.1f} s, canary {record['rollout']['phase']}")
    print(", ".join(f"{step} {took:.1f}" for step, took in record["timings_s"].items()))
    losses = {"network": record["metrics"]["log_loss"]}
    losses |= {name: metrics["log_loss"] for name, metrics in record["baselines"].items()}
    print("log-loss: " + ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items()))


if __name__ == "__main__":
    main()
