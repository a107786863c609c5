"""From a file to a prediction: `churn init --yes`, then `churn run --no-rollout`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRUE_REFUSALS = r"gate|too few|too short|single class|no customer leaves|hardly"
"""Reasons in the data: the gates refuse the model, or there are too few rows or classes."""


def run_to_a_prediction(file: Path, folder: Path) -> None:
    """Assert that the loop ends with an answer of the server, or with one line with a reason in the data."""
    overlay = folder / "overlay.yaml"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CHURN_MASK_KEY": "k" * 32}

    def churn(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "churn", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=folder, timeout=1500
        )

    written = churn("init", str(file), "--yes", "--out", str(overlay))
    assert written.returncode == 0, written.stderr
    ran = churn("run", "--no-rollout", "--config", str(overlay), "--set", f"workspace={folder / 'var'}")
    last = ran.stderr.strip().splitlines()[-1] if ran.stderr.strip() else ""
    if ran.returncode:
        assert "Traceback" not in ran.stderr, ran.stderr
        assert re.search(TRUE_REFUSALS, last), last
        return
    record = json.loads((folder / "var" / "run.json").read_text())
    answers = record["answers"]
    assert answers and all(0 <= answer["churn_probability"] <= 1 for answer in answers)
