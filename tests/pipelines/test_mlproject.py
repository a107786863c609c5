"""MLproject: its commands are those of `churn`, which refuses misspelt names and values of another type."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from churn.cli import main

ROOT = Path(__file__).resolve().parents[2]
ENTRIES: dict[str, Any] = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]


def words(entry: str, **given: str) -> list[str]:
    """The arguments of `churn` that MLflow would give."""
    values = {name: str(about["default"]) for name, about in ENTRIES[entry]["parameters"].items()} | given
    program, *arguments = shlex.split(ENTRIES[entry]["command"].format(**values))
    assert program == "churn"
    return arguments


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_misspelt_parameter_is_refused(entry: str, capsys: pytest.CaptureFixture[str]) -> None:
    """MLflow appends what it does not know to the command."""
    with pytest.raises(SystemExit, match="2"):
        main([*words(entry), "--trails", "3"])
    assert capsys.readouterr().err.splitlines()[-1].startswith("churn")


@pytest.mark.parametrize("name", ["trials", "epochs", "seed"])
def test_a_value_of_another_type_is_refused_with_its_name(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words("main", workspace=str(tmp_path), **{name: "many"})) == 2
    assert f".{name}: " in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_mlflow_runs_an_entry_point_and_reports_its_failure(tmp_path: Path) -> None:
    bin_ = Path(sys.executable).parent
    entry = ("-e", "reproduce", "-P", "version=9", "-P", f"workspace={tmp_path / 'var'}")
    command = [str(bin_ / "mlflow"), "run", str(ROOT), "--env-manager=local", *entry]
    environment = os.environ | {
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'runs.db'}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode != 0
    assert "VERSION: 9 is not registered" in done.stdout + done.stderr
