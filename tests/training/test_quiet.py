"""What a person sees on the console while the training room works: nothing but our own progress."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

from churn.settings import CONFIGS
from core.workspace import Workspace

CODE = """
import sys
from pathlib import Path
import pandas as pd
from churn.settings import load_settings
from core.workspace import Workspace
from training.gates.collect import collect_evidence
from training.gates import judge, write_report
from training.release.tracking import record_run
from training.learn.resolved import FitSettings
from training.train import train
from training.trained import TrainedModel
from training.tuning.tune import tune

rows, files = pd.read_parquet(sys.argv[1]), Workspace(Path(sys.argv[2]))
s = load_settings(overrides=sys.argv[3:])
tuning = s.tuning.model_copy(update={"trials": 2})
best = tune(rows, FitSettings("transactions", s.features, s.model, s.training), tuning, files)
settings = FitSettings("transactions", s.features, best.model, best.training)
train(rows, settings, files)
model = TrainedModel(files, settings, s.decision)
evidence = collect_evidence(rows, model, s.gates)
report = judge(s.gates, evidence)
write_report(report, files)
record_run(model, report, "c0ffee")
"""


def test_the_libraries_are_silent(rows: pd.DataFrame, tmp_path: Path, workspace: Workspace) -> None:
    rows[rows["user_id"] < "u_4"].to_parquet(tmp_path / "rows.parquet", index=False)
    overrides = [
        f"workspace={workspace.root}",
        "training.epochs=1",
        "model.hidden=[8]",
        "model.seeds=[0]",
        "training.baselines=[base_rate, gradient_boosting]",
    ]
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "rows.parquet"), str(workspace.root), *overrides],
        capture_output=True,
        text=True,
        cwd=CONFIGS.parent,
        env={k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"},
        timeout=180,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == ""
