"""Makes a listening socket of another process refuse new connections, so that closing it cuts none.

A client is connected, and sends its request, after the handshake with the kernel and before the server
accepts the connection. Closing a listening socket resets all connections that the server has not accepted.
Under load there always are some, and Envoy cannot stop the one without the other. So this module duplicates
Envoy's socket and binds it to a network interface that does not exist. From then on the kernel refuses
connections as if the port were closed, while Envoy accepts the older ones, until the socket can be closed.
"""

import ctypes
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LISTEN, SYN_RECV = 0x0A, 0x03
"""States of a socket (include/net/tcp_states.h): listening; handshake not complete."""
PIDFD_GETFD = 438
"""Number of a system call, since Linux 5.6. For a process of the same user it needs no privilege."""
SO_BINDTOIFINDEX = 62
NO_INTERFACE = 2**31 - 1
"""The kernel compares interfaces when it searches the listening socket for a new connection, but not while it
continues a handshake. Binding a socket that is not bound yet needs no privilege since Linux 5.7.
"""


def refuse_newcomers(pid: int, port: int) -> None:
    """Refuse connections to this port of the process that begin from now on.

    Raises OSError when the system cannot do that or does not permit it.
    """
    for number in _listening(pid, port):
        with socket.socket(fileno=_duplicate(pid, number)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, NO_INTERFACE)


def not_accepted(pid: int, port: int) -> int:
    """How many connections to this port the process has not accepted yet. Raises OSError."""
    return sum(row.clients for row in _rows(pid) if row.port == port)


@dataclass(frozen=True)
class Row:
    """One socket of /proc/PID/net/tcp or tcp6."""

    port: int
    state: int
    queue: int
    """Of a listening socket: connections that wait to be accepted."""
    inode: int

    @property
    def clients(self) -> int:
        return self.queue if self.state == LISTEN else int(self.state == SYN_RECV)


def rows(table: str) -> Iterator[Row]:
    """The rows of such a file's text."""
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
        if table.exists():  # a machine without IPv6 has no tcp6
            yield from rows(table.read_text(encoding="ascii"))


def _listening(pid: int, port: int) -> list[int]:
    """Descriptors, in the process, of the sockets that listen on the port: one for each socket."""
    wanted = {f"socket:[{row.inode}]" for row in _rows(pid) if (row.port, row.state) == (port, LISTEN)}
    found: dict[str, int] = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:  # it was closed meanwhile
            continue
        if target in wanted:
            found[target] = int(entry.name)
    if not found:
        raise OSError(f"process {pid} does not listen on port {port}")
    return list(found.values())


def _duplicate(pid: int, number: int) -> int:
    """Duplicate the descriptor `number` of the process, a descendant of this one, into this process."""
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
