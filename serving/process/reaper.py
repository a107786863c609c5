"""Runs one server for one parent: ends the server when the parent ends, and itself when the server ends.

    python -I -S reaper.py OUTPUT [REMOVE ...] -- COMMAND ...

This script uses only the standard library. The command gets a session of its own, and its output is appended
to OUTPUT. The script writes the command's process id to its standard output. When the command ends, or the
parent ends (the pipe on the standard input closes, or the script gets another parent), every process of the
session's group is ended, and the files REMOVE are removed.
"""

import ctypes
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path

GRACE_S = 5.0
CHECK_INTERVAL_S = 0.2
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main(arguments: list[str]) -> int:
    parent = os.getppid()
    split = arguments.index("--")
    output, remove, command = arguments[0], arguments[1:split], arguments[split + 1 :]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # not SIG_IGN, because the command would inherit it
        signal.signal(number, lambda *_: None)
    _process_control(PR_SET_CHILD_SUBREAPER, 1)  # orphans of the server become children of this process
    pid = os.fork()
    if pid == 0:
        _become(command, output)
    os.write(1, f"{pid}\n".encode())
    status = None
    try:
        while status is None and not _abandoned(parent):
            status = _reap(pid)
    finally:
        _end_group(pid)
        for path in map(Path, remove):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return 0 if status is None else os.waitstatus_to_exitcode(status) & 0xFF


def _become(command: list[str], output: str) -> None:
    try:
        os.setsid()
        _process_control(PR_SET_PDEATHSIG, signal.SIGKILL)  # the command ends when this process is killed
        sink = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _abandoned(parent: int) -> bool:
    readable, _, _ = select.select([0], [], [], CHECK_INTERVAL_S)
    return (bool(readable) and not os.read(0, 1)) or os.getppid() != parent


def _reap(pid: int) -> int | None:
    """Reap the children that have ended; return the exit status of `pid` when it is one of them."""
    found = None
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == pid:
                found = ended[1]
    except ChildProcessError:
        pass
    return found


def _end_group(group: int) -> None:
    """Send SIGTERM, and after GRACE_S SIGKILL, until the group is empty."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + GRACE_S
        try:
            os.killpg(group, number)
            while time.monotonic() < deadline:
                _reap(group)
                os.killpg(group, 0)
                time.sleep(0.02)
        except ProcessLookupError:
            return


def _process_control(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
