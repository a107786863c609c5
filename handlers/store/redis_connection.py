"""A connection to one Redis server: commands are sent in one write, and every wait ends at the deadline.

hiredis, a dependency of Feast's client, parses the replies.
"""

import socket
import ssl
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import hiredis

from handlers.store.deadline import OneAtATime, remaining
from handlers.store.redis_address import Node, Tls
from handlers.store.stored import FeatureStoreUnavailable

CHUNK = 262_144
_MORE: Any = object()


class Connection:
    """Connected to `node` and logged in."""

    def __init__(self, node: Node, connected: socket.socket) -> None:
        self.node = node
        self._socket = connected
        self._reader = hiredis.Reader(notEnoughData=_MORE)

    def send(self, requests: bytes, deadline: float) -> None:
        """Raises OSError or FeatureStoreUnavailable."""
        self._socket.settimeout(remaining(deadline))
        self._socket.sendall(requests)

    def receive(self, count: int, deadline: float) -> list[Any]:
        """The next `count` replies; an error of Redis is returned as a hiredis.ReplyError.

        Raises OSError, FeatureStoreUnavailable or hiredis.HiredisError; the connection is unusable then.
        """
        replies: list[Any] = []
        while len(replies) < count:
            reply = self._reader.gets()
            if reply is _MORE:
                self._socket.settimeout(remaining(deadline))
                content = self._socket.recv(CHUNK)
                if not content:
                    raise ConnectionResetError("the server closed the connection")
                self._reader.feed(content)
            else:
                replies.append(reply)
        return replies

    def request(self, *command: str, deadline: float) -> Any:
        """Send one command and return the reply. Raises FeatureStoreUnavailable for an error of Redis."""
        self.send(encoded(*command), deadline)
        [reply] = self.receive(1, deadline)
        return checked(reply)

    def close(self) -> None:
        self._socket.close()


class Connector:
    """Opens connections in a separate thread, because the resolution of a name has no timeout."""

    def __init__(self) -> None:
        self._thread = OneAtATime()

    def connect(self, node: Node, deadline: float) -> Connection:
        """Raises OSError (ssl.SSLError is one) or FeatureStoreUnavailable."""
        return self._thread.call(lambda: connected(node, deadline), deadline)


def connected(node: Node, deadline: float) -> Connection:
    """Connect, check the certificate, log in and select the database."""
    plain = socket.create_connection((node.host, node.port), timeout=remaining(deadline))
    used = plain
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if node.tls is not None:
            used = context_of(node.tls).wrap_socket(plain, server_hostname=node.host)
        connection = Connection(node, used)
        commands = []
        if node.password is not None:
            user = [] if node.username is None else [node.username]
            commands.append(encoded("AUTH", *user, node.password))
        if node.db:
            commands.append(encoded("SELECT", str(node.db)))
        if commands:
            connection.send(b"".join(commands), deadline)
            for reply in connection.receive(len(commands), deadline):
                checked(reply)
    except BaseException:
        used.close()
        plain.close()
        raise
    return connection


@lru_cache(16)
def context_of(tls: Tls) -> ssl.SSLContext:
    """TLS 1.2 or later. Raises OSError when a file cannot be read."""
    context = ssl.create_default_context(cafile=tls.ca_certs)
    context.check_hostname = tls.check_hostname
    if tls.certfile is not None:
        context.load_cert_chain(tls.certfile, tls.keyfile)
    return context


def checked(reply: Any) -> Any:
    """Return `reply`. Raises FeatureStoreUnavailable with the first word of an error: LOADING, NOAUTH..."""
    if isinstance(reply, hiredis.ReplyError):
        raise FeatureStoreUnavailable(str(reply).split(" ")[0])
    return reply


def encoded(*command: str) -> bytes:
    return b"*%d\r\n" % len(command) + b"".join(bulk(part.encode()) for part in command)


def bulk(content: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(content), content)


def words(replies: Sequence[Any]) -> list[Any]:
    """Replies with their bytes as text."""
    return [reply.decode(errors="replace") if isinstance(reply, bytes) else reply for reply in replies]
