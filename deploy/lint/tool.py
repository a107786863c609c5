"""Runs the programs that check, and finds out whether they are here."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = ROOT / "var" / "deploy"
"""What `make deploy-tools` has made."""


BIN = TOOLS / "venv" / "bin"


class Missing(Exception):
    """A tool is not on this machine. The message names it and how to get it."""


def find(name: str, remedy: str) -> str:
    """The path of a program that `make deploy-tools` has installed, or that is on PATH; raises Missing."""
    path = shutil.which(name, path=str(BIN)) or shutil.which(name)
    if path is None:
        raise Missing(f"{name} is not here: {remedy}")
    return path


def output(*command: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Exit code of a program, and all that it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=None if env is None else dict(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.strip()
