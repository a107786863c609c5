"""A listening socket of another process takes no new client, so that closing it cuts none.

A client is connected, and sends its request, as soon as the kernel has shaken hands with it: before the
server accepts it. Closing a listening socket resets all whom the server has not accepted by then, and under
load there is always somebody. Envoy cannot do one without the other. So we take a duplicate of its socket
and bind it to a network interface that does not exist: from then on the kernel refuses whoever comes, as if
nobody listened, and Envoy accepts meanwhile those who came before, until the socket can be closed.
"""

import ctypes
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LISTEN, SYN_RECV = 0x0A, 0x03
"""States of a socket (include/net/tcp_states.h): it takes clients; one whose handshake is not complete."""
PIDFD_GETFD = 438
"""The number of a system call of Linux 5.6; of a process of our own user it needs no privilege."""
SO_BINDTOIFINDEX = 62
NO_INTERFACE = 2**31 - 1
"""The kernel compares interfaces when it looks for who listens, not when a handshake that has begun goes on.
To bind a socket that is not bound yet needs no privilege since Linux 5.7.
"""


def refuse_newcomers(pid: int, port: int) -> None:
    """Whoever begins to connect to this port of the process from now on is refused.

    Raises OSError where the system cannot do that, or does not let us.
    """
    for number in _listening(pid, port):
        with socket.socket(fileno=_duplicate(pid, number)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, NO_INTERFACE)


def not_accepted(pid: int, port: int) -> int:
    """How many clients the kernel holds for this port of the process. Raises OSError."""
    return sum(row.clients for row in _rows(pid) if row.port == port)


@dataclass(frozen=True)
class Row:
    """One socket of /proc/PID/net/tcp or tcp6."""

    port: int
    state: int
    queue: int
    """Of a socket that listens: connections that wait to be accepted."""
    inode: int

    @property
    def clients(self) -> int:
        return self.queue if self.state == LISTEN else int(self.state == SYN_RECV)


def rows(table: str) -> Iterator[Row]:
    """What the text of such a file says."""
    for line in table.splitlines()[1:]:
        _, local, _, state, queues, _, _, _, _, inode, *_ = line.split()
        yield Row(
            int(local.rpartition(":")[2], 16),
            int(state, 16),
            int(queues.rpartition(":")[2], 16),
            int(inode),
        )


def _rows(pid: int) -> Iterator[Row]:
    for name in ("tcp", "tcp6"):
        table = Path(f"/proc/{pid}/net/{name}")
        if table.exists():  # there is no tcp6 on a machine without IPv6
            yield from rows(table.read_text(encoding="ascii"))


def _listening(pid: int, port: int) -> list[int]:
    """The process's descriptors of sockets that listen there, one for each socket."""
    wanted = {f"socket:[{row.inode}]" for row in _rows(pid) if (row.port, row.state) == (port, LISTEN)}
    found: dict[str, int] = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:  # closed since
            continue
        if target in wanted:
            found[target] = int(entry.name)
    if not found:
        raise OSError(f"process {pid} has no socket that listens at port {port}")
    return list(found.values())


def _duplicate(pid: int, number: int) -> int:
    """A descriptor of our own for what `number` is in the process, a descendant of ours."""
    if sys.platform != "linux":
        raise OSError(f"no pidfd_getfd on {sys.platform}")
    process = os.pidfd_open(pid)
    try:
        system_call = ctypes.CDLL(None, use_errno=True).syscall
        ours = int(system_call(PIDFD_GETFD, process, number, 0))
        if ours < 0:
            raise OSError(ctypes.get_errno(), f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
        return ours
    finally:
        os.close(process)
