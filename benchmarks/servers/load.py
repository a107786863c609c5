"""Load by wrk: one thread and a number of connections, each with one request at a time."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("customers.lua")
TIMEOUT_S = 30


@dataclass(frozen=True)
class Target:
    """Address and content of the requests: `body` has one %s, the customer."""

    url: str
    body: str
    headers: tuple[str, ...] = ()
    certificate: str | None = None
    """The certificate file of an https address with a self-signed certificate. wrk checks none."""


@dataclass(frozen=True)
class Load:
    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    refused: int
    """Answers with a status of 400 or more."""
    broken: int
    """Connections refused or cut."""
    timeouts: int
    statuses: Mapping[str, int]
    """Number of answers by status, if `statuses` was set."""

    @property
    def answered_per_s(self) -> float:
        """Good answers only: a refusal is quick and is no throughput."""
        return (self.requests - self.refused) / self.seconds


def available() -> bool:
    return shutil.which("wrk") is not None


def load(target: Target, ids: Path, connections: int, seconds: float, statuses: bool = False) -> Load:
    """Runs wrk for `seconds`, rounded since wrk takes whole seconds. `ids`: a file with a customer a line."""
    environment = {**os.environ, "HEADERS": "\n".join(target.headers)}
    environment.pop("STATUSES", None)
    if statuses:
        environment["STATUSES"] = "1"
    command = [
        *("wrk", "-t", "1", "-c", str(connections), "-d", f"{max(1, round(seconds))}s"),
        *("--timeout", f"{TIMEOUT_S}s", "-s", str(SCRIPT), target.url, "--", str(ids), target.body),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return Load(**json.loads(done.stdout.strip().splitlines()[-1]))
