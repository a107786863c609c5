"""Processes of a benchmark: a free port, the wait for an answer, a pause, and the end of the whole tree."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

GRACE_S = 10


class NotStarted(RuntimeError):
    """A server of the comparison does not run here; the message says why."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Return when `ready` says so. Raises NotStarted when the process ends before, or time does."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if process.poll() is not None:
            raise NotStarted(f"ended with exit code {process.returncode} before it answered")
        if time.monotonic() > deadline:
            raise NotStarted(f"no answer within {timeout_s:g} s")
        time.sleep(0.1)


@contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """At the end of the block the process and its children are gone."""
    try:
        yield
    finally:
        family = tree(process.pid)
        for signal in (psutil.Process.terminate, psutil.Process.kill):
            for member in family:
                with suppress(psutil.NoSuchProcess):
                    member.resume()
                    signal(member)
            _, family = psutil.wait_procs(family, timeout=GRACE_S)
        process.wait()


def freeze(*pids: int) -> None:
    """Stop a server and its children where they stand, so that the one that is measured has the machine."""
    for member in (process for pid in pids for process in tree(pid)):
        with suppress(psutil.NoSuchProcess):
            member.suspend()


def thaw(*pids: int) -> None:
    for member in (process for pid in pids for process in reversed(tree(pid))):
        with suppress(psutil.NoSuchProcess):
            member.resume()


def tree(pid: int) -> list[psutil.Process]:
    try:
        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
