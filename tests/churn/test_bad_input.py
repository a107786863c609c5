"""Bad input: one line on stderr, an exit code that is not zero, and no incomplete file."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from churn.cli import main
from churn.settings import CONFIGS

Refused = Callable[..., str]


def orders(rows: int = 1500, first: str = "2023-01-01", days: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "customer": rng.integers(1, 300, rows),
            "when": pd.Timestamp(first)
            + pd.to_timedelta(np.sort(rng.uniform(0, days, rows)), unit="D").floor("s"),
            "value": rng.gamma(2.0, 20.0, rows).round(2),
        }
    )


@pytest.fixture
def overlay(tmp_path: Path) -> list[str]:
    file = tmp_path / "orders.yaml"
    file.write_text(
        f"workspace: {tmp_path / 'var'}\n"
        "data:\n"
        "  shape: transactions\n"
        "  source:\n"
        "    kind: csv\n"
        f"    uri: {tmp_path / 'orders.csv'}\n"
        "    columns: {user_id: customer, timestamp: when, amount: value}\n"
        "    user_id_type: integer\n"
    )
    return ["--config", str(file)]


@pytest.fixture
def refused(tmp_path: Path, overlay: list[str], capfd: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that has to be refused, and return its line. Files of earlier runs must not change."""

    def run(*command: str, code: int = 2) -> str:
        before = written(tmp_path / "var")
        capfd.readouterr()
        assert main([*command, *overlay]) == code
        stderr = capfd.readouterr().err
        assert written(tmp_path / "var") == before
        lines = [line for line in stderr.splitlines() if line.strip()]
        assert len(lines) == 1 and lines[0].startswith("churn: "), stderr
        return lines[0]

    return run


def written(folder: Path) -> dict[str, bytes]:
    """All files that stages exchange; locks, secrets and the ledger of the steps are not results."""
    results = [p for stage in ("data", "features") for p in (folder / stage).rglob("*") if p.is_file()]
    return {str(path): path.read_bytes() for path in results if path.name != ".lock"}


def ingested(tmp_path: Path, overlay: list[str], table: pd.DataFrame) -> None:
    table.to_csv(tmp_path / "orders.csv", index=False)
    assert main(["ingest", *overlay]) == 0


def test_a_missing_file(refused: Refused) -> None:
    assert "orders.csv" in refused("ingest")


def test_wrong_columns(refused: Refused, tmp_path: Path, overlay: list[str]) -> None:
    ingested(tmp_path, overlay, orders())
    orders().rename(columns={"value": "valeu"}).to_csv(tmp_path / "orders.csv", index=False)
    message = refused("ingest")
    assert "value" in message and "valeu" in message


def test_a_typo_in_the_config(refused: Refused, tmp_path: Path) -> None:
    assert "did you mean horizon_days?" in refused("ingest", "--set", "features.horizon_day=30")


def test_an_empty_table(refused: Refused, tmp_path: Path, overlay: list[str]) -> None:
    ingested(tmp_path, overlay, orders())
    orders().head(0).to_csv(tmp_path / "orders.csv", index=False)
    assert "orders.csv" in refused("ingest")


def test_duplicate_rows(refused: Refused, tmp_path: Path, overlay: list[str]) -> None:
    table = orders()
    pd.concat([table, table.head(3)]).to_csv(tmp_path / "orders.csv", index=False)
    assert "duplicate" in refused("ingest").lower()


def test_dates_in_the_future(refused: Refused, tmp_path: Path) -> None:
    table = orders()
    table.loc[5, "when"] = pd.Timestamp("2123-01-01")
    table.to_csv(tmp_path / "orders.csv", index=False)
    assert "timestamp" in refused("ingest")


def test_a_label_horizon_past_the_end(refused: Refused, tmp_path: Path, overlay: list[str]) -> None:
    ingested(tmp_path, overlay, orders())
    assert main(["features", "build", *overlay]) == 0
    message = refused("features", "build", "--as-of", "2024-01-01")
    assert "horizon" in message and "the last as_of with a label is 2023-11-07" in message


def test_a_log_too_short_to_learn_from(refused: Refused, tmp_path: Path, overlay: list[str]) -> None:
    ingested(tmp_path, overlay, orders(days=60))
    assert "too short" in refused("features", "build")


def test_steps_out_of_order_name_the_one_to_run(refused: Refused) -> None:
    assert "run `churn ingest` first" in refused("features", "build")
    assert "churn package" in refused("serve", code=1)
    assert "churn serve" in refused("predict", "1", code=1)


def test_a_second_run_while_one_is_running(refused: Refused, tmp_path: Path) -> None:
    program = (
        "import pathlib, sys\n"
        "from churn.lock import alone\nfrom core.workspace import Workspace\n"
        f"with alone(Workspace(pathlib.Path({str(tmp_path / 'var')!r}))):\n"
        "    print('locked', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None and first.stdout.readline() == b"locked\n"
        message = refused("ingest", code=1)
        assert f"process {first.pid}" in message and "workspace=" in message
        first.kill()  # the lock of a killed process is released
    assert "orders.csv" in refused("ingest")


def test_a_workspace_that_cannot_be_written(refused: Refused) -> None:
    assert "Not a directory" in refused("ingest", "--set", "workspace=/dev/null/var", code=1)


@pytest.mark.parametrize(
    ("size", "command"),
    [("100k", "ingest"), ("12m", "run"), pytest.param("60m", "run", marks=pytest.mark.slow)],
)
def test_a_full_disk_leaves_no_incomplete_file(size: str, command: str, tmp_path: Path) -> None:
    """On a real small disk: one line, and every file that stages exchange is complete."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        words = [sys.executable, "-m", "churn", command, "--set", f"workspace={disk / 'var'}"]
        done = subprocess.run(words, cwd=CONFIGS.parent, capture_output=True, text=True, check=False)
        errors = [line for line in done.stderr.splitlines() if line.startswith("churn: ")]
        assert done.returncode in (1, 2) and len(errors) == 1 and "Traceback" not in done.stderr, done.stderr
        for link in (disk / "var").glob("*/current"):
            assert link.is_symlink() and all(file.stat().st_size for file in link.iterdir())
        for leftover in (disk / "var").glob("*/version-*"):
            assert leftover == (leftover.parent / "current").resolve()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
