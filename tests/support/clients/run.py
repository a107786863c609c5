"""Runs a script of this folder against an address."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def outcomes_of(
    script: str,
    address: str,
    headers: Mapping[str, str],
    grpc: str,
    masked: Sequence[str],
    version: str | None = None,
) -> dict[str, Any]:
    """Call -> what came of it."""
    command = [sys.executable, str(HERE / f"{script}.py"), address, json.dumps(headers), grpc]
    done = subprocess.run(
        [*command, json.dumps(masked)],
        env=os.environ | ({} if version is None else {"MODEL_VERSION": version}),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("OUTCOMES ")]
    assert found, done.stderr
    return dict(json.loads(found[-1].removeprefix("OUTCOMES ")))
