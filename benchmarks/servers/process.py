"""Processes of a benchmark: a free port, the wait for an answer, a pause, and the end of the whole tree."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

GRACE_S = 10


class NotStarted(RuntimeError):
    """A server of the comparison does not run here; the message is the reason."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Returns when `ready` is true. Raises NotStarted if the process ends before, or after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if process.poll() is not None:
            raise NotStarted(f"ended with exit code {process.returncode} before it answered")
        if time.monotonic() > deadline:
            raise NotStarted(f"no answer within {timeout_s:g} s")
        time.sleep(0.1)


@contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ends the process and its children at the end of the block."""
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
    """Suspends a server and its children, so that the measured one has the whole machine."""
    for member in (process for pid in pids for process in tree(pid)):
        with suppress(psutil.NoSuchProcess):
            member.suspend()


def thaw(*pids: int) -> None:
    """Resumes a server and its children."""
    for member in (process for pid in pids for process in reversed(tree(pid))):
        with suppress(psutil.NoSuchProcess):
            member.resume()


def tree(pid: int) -> list[psutil.Process]:
    try:
        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
