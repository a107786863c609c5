"""`churn replay` on a small history: the same bytes when repeated, and nothing after the moment is read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from monitoring.stored import MonitorStore
from retraining.ledger import Ledger, derived_again

ROOT = Path(__file__).resolve().parents[2]
FIRST, LAST = "2021-06-01", "2021-08-01"
CORRUPT_FROM = "2021-07-01"


def shop(customers: int = 1000, days: int = 230, seed: int = 5) -> pd.DataFrame:
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


def replayed(policy: str, source: Path, workspace: Path) -> tuple[bytes, pd.DataFrame, str]:
    """The ledger, the prediction log, and the output of the command.

    The bundle names the whole source file, and the gate report with its milliseconds: see `of_scores`.
    """
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
        "gates.profile=lenient",  # a rollout is wanted here, whatever so few customers teach
        'gates.profiles.lenient={"floors": {"minimum": {"auroc": 0.5}}}',
    )
    command = [sys.executable, "-m", "churn", "replay", "--from", FIRST, "--to", LAST, "--step", "month"]
    flags = [flag for setting in settings for flag in ("--set", setting)]
    done = subprocess.run(
        [*command, "--policy", policy, "--fast", "--seed", "3", *flags],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "CHURN_MASK_KEY": "replay" * 8},
    )  # fmt: skip
    [ledger] = workspace.glob("replay/*/*/ledger.jsonl")
    files = sorted(ledger.parent.glob("serving/predictions/*/*.parquet"))
    scores = pd.concat([pd.read_parquet(file) for file in files])
    return ledger.read_bytes(), scores, done.stdout + done.stderr


def of_scores(log: pd.DataFrame) -> pd.DataFrame:
    """Everything but the names of the archive."""
    return log.drop(columns=["model_version", "bundle_sha256"]).reset_index(drop=True)


@pytest.fixture(scope="module", params=["every:1", "ours"])
def policy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def first(policy: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, pd.DataFrame, str]:
    """The workspace, the ledger, the scores and the output of a replay of the clean history."""
    folder = tmp_path_factory.mktemp("first")
    shop().to_csv(folder / "orders.csv", index=False)
    return folder / "var", *replayed(policy, folder / "orders.csv", folder / "var")


@pytest.mark.slow
def test_replay_trains_rolls_out_and_leaves_the_workspace_as_it_is(
    policy: str, first: tuple[Path, bytes, pd.DataFrame, str]
) -> None:
    workspace, ledger, scores, output = first
    rows = [json.loads(line) for line in ledger.splitlines()]
    kinds = [row["what"] for row in rows]
    assert kinds.count("trained") == (3 if policy == "every:1" else 1), output
    assert "rolled out" in kinds and "served" in kinds and "came true" in kinds, output
    assert len(scores) == sum(row["customers"] for row in rows if row["what"] == "served")
    assert {path.name for path in workspace.iterdir()} <= {"replay", ".lock"}
    references = {path.name for path in workspace.glob("replay/*/*/model-store/references/*")}
    assert scores["model_version"].iloc[-1] in references  # the drift reference of the model that serves
    [report] = workspace.glob("replay/*/report.html")
    assert policy in report.read_text(encoding="utf-8")


@pytest.mark.slow
def test_ours_is_the_monitor_and_the_governor_of_production(
    policy: str, first: tuple[Path, bytes, pd.DataFrame, str]
) -> None:
    """Their rows are in the database of the replay, and each decision is derived again from its evidence."""
    [database] = first[0].glob("replay/*/*/rollout.db")
    entries = Ledger(f"sqlite:///{database}").entries("churn")
    runs = MonitorStore(f"sqlite:///{database}").runs("churn")
    if policy != "ours":
        assert not entries and not runs
        return
    assert len(entries) == len(runs) == 2
    assert [derived_again(entry) for entry in entries] == [[], []]
    measured = {one.name for run in runs for one in run.checked.measurements}
    assert {"ageing_nats", "served_stale_share"} <= measured
    assert not [one for run in runs for one in run.checked.findings], "nothing is wrong in this history"
    assert all("period_days" in entry.decision.numbers for entry in entries)


@pytest.mark.slow
def test_corrupt_data_change_no_decision_and_no_score_before_their_time(
    policy: str, first: tuple[Path, bytes, pd.DataFrame, str], tmp_path: Path
) -> None:
    _, ledger, scores, _ = first
    corrupted(shop()).to_csv(tmp_path / "orders.csv", index=False)
    other, other_scores, output = replayed(policy, tmp_path / "orders.csv", tmp_path / "var")
    # what came true is written at the end, about all moments
    clean, changed = (
        [line for line in found.splitlines() if json.loads(line)["what"] != "came true"]
        for found in (ledger, other)
    )
    until = sum(json.loads(line)["at"] < "2021-07-02" for line in clean)
    assert until > len(clean) / 2
    assert changed[:until] == clean[:until], output
    assert changed != clean  # the corrupt rows are read once their time has come
    early = [of_scores(found[found["time"] < "2021-07-02"]) for found in (scores, other_scores)]
    pd.testing.assert_frame_equal(*early, check_exact=True)


@pytest.mark.slow
def test_repeated_replay_gives_the_same_bytes(
    policy: str, first: tuple[Path, bytes, pd.DataFrame, str], tmp_path: Path
) -> None:
    _, ledger, scores, _ = first
    shop().to_csv(tmp_path / "orders.csv", index=False)
    again, scores_again, output = replayed(policy, tmp_path / "orders.csv", tmp_path / "var")
    assert again == ledger, output
    pd.testing.assert_frame_equal(of_scores(scores_again), of_scores(scores), check_exact=True)


def test_help_of_replay_has_examples() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "churn", "replay", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "churn replay --from" in done.stdout and "--policy" in done.stdout and "--fast" in done.stdout
