"""The keeper ends what it started, whatever happens to its parent: shown with small processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from serving.kept import KEEPER

# a leader and a child of it; the stubborn pair only ends by KILL
TREE = "sleep 300 & echo child $!; wait"
STUBBORN = "trap '' TERM; sh -c 'sleep 300; sleep 300' & echo child $!; sleep 300; sleep 300"
PARENT = """
import subprocess, sys, time
keeper = subprocess.Popen({command!r}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
print(keeper.pid, keeper.stdout.readline().decode().strip(), flush=True)
time.sleep(300)
"""


def command(folder: Path, script: str, *remove: Path) -> list[str]:
    keeper = [sys.executable, "-I", "-S", str(KEEPER), str(folder / "output"), *map(str, remove)]
    return [*keeper, "--", "sh", "-c", script]


def child_of(folder: Path) -> int:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        words = (folder / "output").read_text().split() if (folder / "output").exists() else []
        if len(words) >= 2:
            return int(words[1])
        time.sleep(0.02)
    raise AssertionError("the tree did not start")


def assert_gone(*pids: int, within_s: float = 15) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        left = [pid for pid in pids if _runs(pid)]
        if not left:
            return
        time.sleep(0.05)
    raise AssertionError(f"still running: {left}")


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, int, Path]]:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(command=command(tmp_path, TREE, scratch))],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    keeper, leader = map(int, parent.stdout.readline().split())
    yield parent, keeper, leader, scratch
    parent.kill()
    parent.wait()
    parent.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_parent(
    kept: tuple[subprocess.Popen[bytes], int, int, Path], tmp_path: Path, number: signal.Signals
) -> None:
    parent, keeper, leader, scratch = kept
    child = child_of(tmp_path)
    parent.send_signal(number)
    parent.wait(10)
    assert_gone(keeper, leader, child)
    assert not scratch.exists()


def test_a_killed_keeper_takes_the_server_with_it(
    kept: tuple[subprocess.Popen[bytes], int, int, Path], tmp_path: Path
) -> None:
    _, keeper, leader, _ = kept
    child = child_of(tmp_path)
    os.kill(keeper, signal.SIGKILL)
    assert_gone(leader)
    # only a server's own worker notices that its server went; this child is none
    os.kill(child, signal.SIGKILL)


def test_signals_of_the_terminal_do_not_reach_the_server(
    kept: tuple[subprocess.Popen[bytes], int, int, Path],
) -> None:
    _, keeper, leader, _ = kept
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(keeper, number)
    time.sleep(0.5)
    assert _runs(keeper)
    assert _runs(leader)


def start(folder: Path, script: str) -> tuple[subprocess.Popen[bytes], int]:
    keeper = subprocess.Popen(command(folder, script), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert keeper.stdout is not None
    leader = int(keeper.stdout.readline())
    keeper.stdout.close()
    return keeper, leader


def test_what_ignores_term_is_killed(tmp_path: Path) -> None:
    keeper, leader = start(tmp_path, STUBBORN)
    child = child_of(tmp_path)
    assert keeper.stdin is not None
    keeper.stdin.close()
    keeper.wait(15)
    assert_gone(leader, child, within_s=1)


def test_when_the_server_ends_its_children_do_and_its_exit_code_is_ours(tmp_path: Path) -> None:
    keeper, leader = start(tmp_path, "sleep 300 & echo child $!; exit 7")
    child = child_of(tmp_path)
    assert keeper.wait(15) == 7
    assert keeper.stdin is not None
    keeper.stdin.close()
    assert_gone(leader, child, within_s=1)


def test_a_command_that_is_not_there_ends_at_once(tmp_path: Path) -> None:
    arguments = [sys.executable, "-I", "-S", str(KEEPER), str(tmp_path / "output"), "--", "/nowhere/java"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeper:
        assert keeper.wait(15) == 127
    assert "/nowhere/java: No such file" in (tmp_path / "output").read_text()
