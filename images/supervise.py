"""Runs TorchServe and the Envoy in front of it below process 1: their lines to stdout, and the reason in
words when workers do not stay up.

TorchServe starts a worker that ended again and again, and says nothing of the reason: a container stays
"Running", while the kernel kills its worker for memory every 15 seconds. Here each end of a worker is written
to stdout with the memory limit and the kernel's count, and after TRIES ends without a ready worker between
them the container ends. Kubernetes then shows the reason as termination message, and starts it again later.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

TRIES = 3
"""So many workers in a row may end before one is ready."""
LOOK_EVERY_S = 1.0
STOP_WITHIN_S = 20.0
TERMINATION = Path("/dev/termination-log")
"""Kubernetes mounts it; what is written there is in the container's status."""
LONGEST = 2000
REFUSED = re.compile(r"REFUSED (.*)")
"""The line that the handler writes before it ends its worker."""
WORKER = b"model_service_worker"


@dataclass(frozen=True)
class Memory:
    """Of the container. None: the kernel does not say."""

    limit: int | None
    peak: int | None
    killed: int
    """Processes that the kernel ended for memory."""

    def text(self) -> str:
        if self.limit is None:
            return "no memory limit"  # what is in use is then that of the whole machine
        limit = f"memory limit {self.limit >> 20} MiB"
        return limit if self.peak is None else f"{limit}, most in use {self.peak >> 20} MiB"


def memory(root: Path = Path("/sys/fs/cgroup")) -> Memory:
    """From the container's control group, of version 2 or 1."""
    if (root / "memory.max").is_file():
        return Memory(
            _number(root / "memory.max"),
            _number(root / "memory.peak"),
            _field(root / "memory.events", "oom_kill"),
        )
    old = root / "memory"
    return Memory(
        _number(old / "memory.limit_in_bytes"),
        _number(old / "memory.max_usage_in_bytes"),
        _field(old / "memory.oom_control", "oom_kill"),
    )


def _number(file: Path) -> int | None:
    """None without the file, and for the value that means no limit."""
    try:
        value = int(file.read_text())
    except (OSError, ValueError):
        return None
    return value if value < 1 << 50 else None


def _field(file: Path, name: str) -> int:
    try:
        pairs = dict(line.split() for line in file.read_text().splitlines())
        return int(pairs.get(name, 0))
    except (OSError, ValueError):
        return 0


class Workers:
    """What is known of the workers: which run, how many ended since one was ready, and why."""

    def __init__(self, killed_before: int = 0) -> None:
        self._running: frozenset[int] = frozenset()
        self._killed = killed_before
        self._refusal, self._line = "", ""
        self._killed_in_row = 0
        self.ended_in_row = 0
        """Since a worker was ready."""

    def said(self, message: str) -> None:
        """A line of TorchServe or of a worker."""
        if refused := REFUSED.search(message):
            self._refusal = refused[1]
        elif message.strip():
            self._line = message.strip()

    def look(self, running: frozenset[int], ready: bool, now: Memory) -> list[str]:
        """Sentences about the workers that ended since the last look. `ready`: a worker can answer."""
        ended, self._running = self._running - running, running
        killed, self._killed = now.killed - self._killed, now.killed
        if ready and not ended:
            self.ended_in_row = self._killed_in_row = 0
            self._refusal = ""
        self.ended_in_row += len(ended)
        self._killed_in_row += min(killed, len(ended))
        return [
            f"worker {pid} ended; {self._why(position < killed, now)}"
            for position, pid in enumerate(sorted(ended))
        ]

    def reason(self, now: Memory) -> str:
        """Why no worker becomes ready, in one line."""
        if self._killed_in_row:
            return (
                f"the kernel ended {self._killed_in_row} workers for memory before one was ready"
                f" ({now.text()}); raise the container's memory limit"
            )
        return self._refusal or f"workers end before they are ready; the last line was: {self._line}"

    def _why(self, killed: bool, now: Memory) -> str:
        if killed:
            return f"the kernel ended it for memory ({now.text()}; {now.killed} so far)"
        return self._refusal or f"not for memory ({now.text()}); the last line was: {self._line}"


def supervise(
    command: Sequence[str],
    environment: Mapping[str, str],
    ready: Callable[[], bool],
    root: Path = Path("/sys/fs/cgroup"),
    front: Sequence[str] | None = None,
) -> int:
    """Run `command` until it ends, and return the exit code of the container.

    `ready`: whether a worker can answer; it is called once a second until it is true, and again after a
    worker has ended. `front`: the command of the server in front of it. It ends after TorchServe, so that
    the last answers pass, and where it ends by itself, so does TorchServe.
    """
    child = _start(command, environment)
    before = None if front is None else _start(front, environment)
    over = threading.Event()

    def stop(*_: object) -> None:
        over.set()
        child.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    workers = Workers(memory(root).killed)
    readers = [
        threading.Thread(target=_pass_on, args=(one, found), daemon=True)
        for one, found in ((child, workers), (before, Workers()))
        if one is not None
    ]
    for reader in readers:
        reader.start()
    given_up, is_ready = "", False
    while child.poll() is None:
        try:
            child.wait(LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            is_ready = is_ready or ready()
            ends = workers.look(workers_of(child.pid), is_ready, memory(root))
            for sentence in ends if not over.is_set() else ():
                _tell("error", sentence)
                _for_kubernetes(sentence)
            is_ready = is_ready and not ends
            if over.is_set():
                continue
            if workers.ended_in_row >= TRIES:
                given_up = workers.reason(memory(root))
                _tell("error", f"given up after {TRIES} workers: {given_up}")
            elif before is not None and before.poll() is not None:
                given_up = f"Envoy ended by {_how(before.returncode)} ({memory(root).text()})"
                _tell("error", given_up)
            if given_up:
                _for_kubernetes(given_up)
                child.terminate()
                break
    code = _wait(child)
    if before is not None:
        before.terminate()
        _wait(before)
    for reader in readers:
        reader.join(1.0)
    if given_up:
        return 1
    if code and not over.is_set():
        sentence = f"TorchServe ended by {_how(code)} ({memory(root).text()})"
        _tell("error", sentence)
        _for_kubernetes(sentence)
    return 128 - code if code < 0 else code


def _start(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _wait(child: "subprocess.Popen[bytes]") -> int:
    try:
        return child.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def workers_of(parent: int, proc: Path = Path("/proc")) -> frozenset[int]:
    """Process ids of TorchServe's workers."""
    try:
        tasks = list((proc / str(parent) / "task").iterdir())
    except OSError:
        return frozenset()
    found = set()
    for task in tasks:
        try:
            children = (task / "children").read_text().split()
            found |= {int(pid) for pid in children if WORKER in (proc / pid / "cmdline").read_bytes()}
        except OSError:
            continue  # it ended meanwhile
    return frozenset(found)


def _pass_on(child: "subprocess.Popen[bytes]", workers: Workers) -> None:
    """Lines of log4j2-container.xml are JSON already; those of the JVM itself are made so."""
    assert child.stdout is not None
    for raw in child.stdout:
        line = raw.decode(errors="replace").rstrip("\n")
        try:
            message = str(json.loads(line)["message"])
        except (ValueError, KeyError, TypeError):
            _tell("info", line)
            message = line
        else:
            print(line, flush=True)  # noqa: T201
        workers.said(message)


def _tell(level: str, message: str) -> None:
    record: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level,
        "source": "start-serve",
        "message": message,
    }
    print(json.dumps(record), flush=True)  # noqa: T201


def _for_kubernetes(message: str) -> None:
    if os.access(TERMINATION, os.W_OK):
        TERMINATION.write_text(message[:LONGEST], encoding="utf-8")


def refused(message: str) -> None:
    """The container does not start: the reason to stderr and into the container's status."""
    print(f"start-serve: {message}", file=sys.stderr)  # noqa: T201
    _for_kubernetes(message)
