"""The tutorial and the how-to pages about a running server, each command in the order of the pages."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.documents import REPOSITORY, Block, blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
SEQUENCE = ("tutorial.md", "how-to/keys-and-tls.md", "how-to/reasons.md")
RUN = "run by: tests/docs/test_tutorial.py"
SERVED_WITHIN_S = 240.0


class Reader:
    """Runs the commands as the pages show them, on a free port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, _free_port()
        self._assigned: list[str] = []
        commands = folder / "bin"
        commands.mkdir()
        shim = commands / "churn"
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m churn "$@"\n', encoding="utf-8")
        shim.chmod(0o755)
        (folder / "examples").symlink_to(REPOSITORY / "examples")
        path = f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {**os.environ, "PATH": path, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"}

    def run(self, line: str) -> str:
        """The output. The exit code is 0, or the one in the comment of the line."""
        if re.match(r"[A-Z_]+=", line):
            self._assigned.append(self._here(line))
        expected = int(found[1]) if (found := re.search(r"# exit code (\d)", line)) else 0
        command = self._here(line).replace("curl -s", "curl -s --fail-with-body")
        done = subprocess.run(
            ["bash", "-c", "\n".join([*self._assigned, command])],
            cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=1800,
        )  # fmt: skip
        assert done.returncode == expected, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def set_port(self) -> None:
        """In the config that `churn init` has written: other tests use the default port."""
        with (self.folder / "orders.churn.yaml").open("a", encoding="utf-8") as config:
            config.write(f"gateway: {{port: {self.port}}}\n")

    def start(self, line: str) -> subprocess.Popen[str]:
        """Starts `churn serve`, and waits until it is ready."""
        with (self.folder / "serve.log").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {self._here(line)}"],
                cwd=self.folder, env=self._environment, stdout=log, stderr=log, text=True,
            )  # fmt: skip
        deadline = time.monotonic() + SERVED_WITHIN_S
        while not self._is_ready():
            log_text = (self.folder / "serve.log").read_text(encoding="utf-8")
            assert process.poll() is None and time.monotonic() < deadline, f"{line}\n{log_text}"
            time.sleep(0.5)
        return process

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5):
                return True
        except OSError:
            return False

    def _here(self, line: str) -> str:
        return line.replace("8080", str(self.port))


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path)


def test_a_reader_comes_from_a_csv_to_a_canary(reader: Reader) -> None:
    serving = None
    try:
        for block in _to_run():
            if block.note.endswith("in the background"):
                serving = reader.start(block.text)
                continue
            for line in block.lines:
                _check_answer(line, reader.run(line))
                if line.startswith("churn init"):
                    reader.set_port()
        assert (reader.folder / "var/orders/reports/churn-report.html").is_file()
        history = reader.run("churn rollout history --config orders.churn.yaml")
        assert "end of the tutorial" in history
    finally:
        if serving is not None:
            serving.send_signal(signal.SIGINT)
            assert serving.wait(120) in (0, 130)


def _to_run() -> Iterator[Block]:
    found = [block for page in SEQUENCE for block in blocks(REPOSITORY / "docs" / page)]
    yield from (block for block in found if block.note.startswith(RUN))


def _check_answer(line: str, output: str) -> None:
    """Answers to requests contain scores, and as many reasons as requested."""
    if not line.startswith("curl"):
        return
    answer = json.loads(output)
    for scored in answer.get("predictions", [answer]):
        assert 0 <= scored["churn_probability"] <= 1, output
    if '"reasons": 3' in line:
        assert 0 < len(answer["predictions"][0]["reasons"]) <= 3
    if '"features": {' in line:
        assert answer["overridden"] == ["orders_30d"]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
