"""Environments of orchestrators, a program that records its arguments, and the digests of a training."""

import hashlib
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from core.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]


def python_of(name: str) -> Path:
    """The Python of `make NAME-env`, or the one in CHURN_AIRFLOW or CHURN_KUBEFLOW; skips without it."""
    given = os.environ.get(f"CHURN_{name.upper()}")
    python = Path(given) if given else ROOT / "var" / "orchestrators" / name / "bin" / "python"
    if not python.is_file():
        pytest.skip(f"no environment for {name}: make {name}-env")
    return python


def own_environment(**variables: str) -> dict[str, str]:
    """The environment of another program: without the import paths of this one."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in hidden} | variables


def churn_program(folder: Path) -> Path:
    """An executable `churn` with the code of this checkout, whatever is installed."""
    return _script(
        folder, f'PYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)} -m churn "$@"'
    )


def recorder(folder: Path) -> tuple[Path, Path]:
    """An executable `churn` that only writes its arguments, a JSON list a line, to a file; both paths."""
    calls = folder / "calls"
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    line = f'{shlex.quote(sys.executable)} -c {shlex.quote(code)} "$@" >> {shlex.quote(str(calls))}'
    return _script(folder, line), calls


def calls_in(file: Path) -> list[list[str]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def digests(files: Workspace) -> dict[str, Any]:
    """What a training made, by content. Not the archive: it contains the id of the run in MLflow."""
    manifest = json.loads(files.manifest.read_text())
    exact = {
        "features": files.snapshots,
        "labels": files.labels,
        "training set": files.training_set,
        "program": files.training / "model.pt2",
        "gate report": files.gate_report / "gate_report.json",
    }
    return {
        "data": manifest["output_sha256"],
        **{name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in exact.items()},
        "model version": json.loads(files.archive_record.read_text())["version"],
    }


def _script(folder: Path, line: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "churn"
    program.write_text(f"#!/bin/sh\n{line}\n")
    program.chmod(0o755)
    return program
