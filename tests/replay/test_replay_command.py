"""`churn replay` on a small history: the same bytes when repeated, and nothing after the moment is read."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
FIRST, LAST = "2021-06-01", "2021-08-01"
CORRUPT_FROM = "2021-07-01"


def shop(customers: int = 1500, days: int = 230, seed: int = 5) -> pd.DataFrame:
    """Orders of customers with rates and lifetimes of their own, sorted by time."""
    draws = np.random.default_rng(seed)
    parts = []
    for customer in range(customers):
        start, rate, life = draws.integers(0, 90), draws.gamma(1.0, 1 / 12), draws.exponential(90)
        at = start + np.cumsum(np.concatenate([[0.0], draws.exponential(1 / max(rate, 1e-3), 80)]))
        at = at[at < min(days, start + life)]
        parts.append(
            pd.DataFrame({"customer": customer, "day": at, "amount": draws.lognormal(3, 0.5, len(at))})
        )
    orders = pd.concat(parts).sort_values("day", ignore_index=True)
    times = pd.Timestamp("2021-01-04") + pd.to_timedelta((orders.pop("day") * 86_400).round(), unit="s")
    return orders.assign(amount=orders["amount"].round(2), time=times)


def corrupted(orders: pd.DataFrame) -> pd.DataFrame:
    """The same rows before CORRUPT_FROM; later ones have wrong customers, amounts and cells."""
    late = (orders["time"] >= CORRUPT_FROM).to_numpy()
    draws = np.random.default_rng(0)
    changed = orders.copy().astype({"customer": object, "amount": object})
    changed.loc[late, "customer"] = draws.permutation(orders["customer"][late].to_numpy())
    changed.loc[late, "amount"] = orders["amount"][late] * 1e4
    some = np.flatnonzero(late)[::300]
    changed.loc[some, "amount"] = "nonsense"
    changed.loc[some + 1, "customer"] = "nobody"
    return changed


def replayed(source: Path, workspace: Path) -> tuple[bytes, dict[str, bytes], str]:
    """The ledger, the scores by file, and the output of the command."""
    columns = json.dumps({"user_id": "customer", "timestamp": "time", "amount": "amount"})
    settings = (
        f"workspace={workspace}",
        f'data.source={{"kind": "csv", "uri": "{source}", "columns": {columns}}}',
        "data.source.user_id_type=string",
        "data.source.duplicates=keep",
        "features.horizon_days=28",
        "features.snapshots.every=week",
        "replay.training.epochs=2",
        "replay.model.wide=false",
        'gates.profiles.default={"floors": {"minimum": {"auroc": 0.5}}}',
    )
    command = [sys.executable, "-m", "churn", "replay", "--from", FIRST, "--to", LAST, "--step", "month"]
    flags = [flag for setting in settings for flag in ("--set", setting)]
    done = subprocess.run(
        [*command, "--policy", "every:1", "--fast", "--seed", "3", *flags],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "CHURN_MASK_KEY": "replay" * 8},
    )  # fmt: skip
    [ledger] = workspace.glob("replay/*/every-1/ledger.jsonl")
    scores = {p.name: p.read_bytes() for p in sorted(ledger.parent.glob("serving/predictions/*/*.parquet"))}
    return ledger.read_bytes(), scores, done.stdout + done.stderr


@pytest.mark.slow
def test_replay_is_repeatable_and_reads_nothing_after_the_moment(tmp_path: Path) -> None:
    source, workspace = tmp_path / "orders.csv", tmp_path / "var"
    shop().to_csv(source, index=False)
    ledger, scores, output = replayed(source, workspace)
    rows = [json.loads(line) for line in ledger.splitlines()]
    kinds = [row["what"] for row in rows]
    assert kinds.count("trained") == 3, output
    assert "rolled out" in kinds and "served" in kinds and scores, output
    user_files = {path.name for path in workspace.iterdir()}
    assert user_files <= {"replay", ".lock"}  # nothing of the user's workspace is made or changed

    shutil.rmtree(workspace)
    again, scores_again, output = replayed(source, workspace)
    assert again == ledger, output
    assert scores_again == scores

    shutil.rmtree(workspace)
    corrupted(shop()).to_csv(source, index=False)
    other, _, output = replayed(source, workspace)
    before = [line for line in ledger.splitlines() if json.loads(line)["what"] != "came true"]
    changed = [line for line in other.splitlines() if json.loads(line)["what"] != "came true"]
    until = sum(json.loads(line)["at"] < "2021-07-02" for line in before)
    assert until > len(before) / 2
    assert changed[:until] == before[:until], output
    assert changed != before  # the corruption is seen once its time has come


def test_help_of_replay_has_examples() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "churn", "replay", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "churn replay --from" in done.stdout and "--policy" in done.stdout and "--fast" in done.stdout
