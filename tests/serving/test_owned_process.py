"""The reaper ends the processes that it started, however its parent ends; with small processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from serving.process.owned import REAPER
from support.waits import within

# a leader and its child; the stubborn pair ends only by SIGKILL
TREE = "sleep 300 & echo child $!; wait"
STUBBORN = "trap '' TERM; sh -c 'sleep 300; sleep 300' & echo child $!; sleep 300; sleep 300"
PARENT = """
import subprocess, sys, time
reaper = subprocess.Popen({command!r}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
print(reaper.pid, reaper.stdout.readline().decode().strip(), flush=True)
time.sleep(300)
"""


def command(folder: Path, script: str, *remove: Path) -> list[str]:
    reaper = [sys.executable, "-I", "-S", str(REAPER), str(folder / "output"), *map(str, remove)]
    return [*reaper, "--", "sh", "-c", script]


def child_of(folder: Path) -> int:
    def words() -> list[str]:
        return (folder / "output").read_text().split()[1:]

    return int(within(30, words, "the tree did not start", ignored=FileNotFoundError)[0])


def assert_gone(*pids: int, within_s: float = 60) -> None:
    within(within_s, lambda: not any(_runs(pid) for pid in pids), "processes still run")


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def owned(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, int, Path]]:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(command=command(tmp_path, TREE, scratch))],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    reaper, leader = map(int, parent.stdout.readline().split())
    yield parent, reaper, leader, scratch
    parent.kill()
    parent.wait()
    parent.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_the_parent(
    owned: tuple[subprocess.Popen[bytes], int, int, Path], tmp_path: Path, number: signal.Signals
) -> None:
    parent, reaper, leader, scratch = owned
    child = child_of(tmp_path)
    parent.send_signal(number)
    parent.wait(10)
    assert_gone(reaper, leader, child)
    assert not scratch.exists()


def test_a_killed_reaper_ends_the_server_too(
    owned: tuple[subprocess.Popen[bytes], int, int, Path], tmp_path: Path
) -> None:
    _, reaper, leader, _ = owned
    child = child_of(tmp_path)
    os.kill(reaper, signal.SIGKILL)
    assert_gone(leader)
    # a TorchServe worker ends when its server ends; this child does not
    os.kill(child, signal.SIGKILL)


def test_signals_of_the_terminal_do_not_reach_the_server(
    owned: tuple[subprocess.Popen[bytes], int, int, Path],
) -> None:
    _, reaper, leader, _ = owned
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(reaper, number)
    time.sleep(0.5)
    assert _runs(reaper)
    assert _runs(leader)


def start(folder: Path, script: str) -> tuple[subprocess.Popen[bytes], int]:
    reaper = subprocess.Popen(command(folder, script), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert reaper.stdout is not None
    leader = int(reaper.stdout.readline())
    reaper.stdout.close()
    return reaper, leader


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    reaper, leader = start(tmp_path, STUBBORN)
    child = child_of(tmp_path)
    assert reaper.stdin is not None
    reaper.stdin.close()
    reaper.wait(15)
    assert_gone(leader, child, within_s=1)


def test_when_the_server_ends_its_children_end_and_its_exit_code_is_passed_on(tmp_path: Path) -> None:
    reaper, leader = start(tmp_path, "sleep 300 & echo child $!; exit 7")
    child = child_of(tmp_path)
    assert reaper.wait(15) == 7
    assert reaper.stdin is not None
    reaper.stdin.close()
    assert_gone(leader, child, within_s=1)


def test_a_missing_command_ends_at_once(tmp_path: Path) -> None:
    arguments = [sys.executable, "-I", "-S", str(REAPER), str(tmp_path / "output"), "--", "/nowhere/java"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reaper:
        assert reaper.wait(15) == 127
    assert "/nowhere/java: No such file" in (tmp_path / "output").read_text()
