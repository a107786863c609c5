"""Addresses of the servers of this machine: loopback, base URLs and free ports."""

import socket

from core.errors import ServingError

LOOPBACK = "127.0.0.1"
LOOPBACK_HOSTS = (LOOPBACK, "localhost", "::1")
ALL_INTERFACES = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104  compared with a setting, not bound here
"""A host that means every interface -> the address by which a client on this machine reaches it."""


def base_url(port: int, host: str = LOOPBACK, scheme: str = "http") -> str:
    """The URL, without a path, by which a client on this machine reaches a server that listens on `host`."""
    host = ALL_INTERFACES.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def free_port(wanted: int, key: str, host: str = LOOPBACK) -> int:
    """Return `wanted`, or for 0 a free port that the system chooses. Raises as `hold_port`."""
    with hold_port(wanted, key, host) as held:
        return int(held.getsockname()[1])


def hold_port(wanted: int, key: str, host: str = LOOPBACK) -> socket.socket:
    """Bind a port, as `free_port` chooses it, until the returned socket is closed.

    Ports that are held at the same time differ from each other. The socket does not listen: a client that
    connected to it would be disconnected when it is closed.

    Raises ServingError with the name of the setting `key` when the port is in use.
    """
    probe = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((host, wanted))
    except OSError as error:
        probe.close()
        raise ServingError(
            f"{key}: port {wanted} on {host}: {error.strerror or error}; "
            "stop what listens there or choose another (0: the system chooses)"
        ) from None
    return probe
