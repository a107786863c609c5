"""Feast's Redis online store, read in one round trip a batch.

A customer is one hash (feast/infra/online_stores/redis.py): a field a feature, named by a hash of view and
feature, and one field for the event time. All HMGETs go out in one write; hiredis, which Feast's client
brings, parses the answers. The socket is our own, so that every wait ends at the deadline.
"""

import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import hiredis
import mmh3

from handlers import wire
from handlers.deadline import OneAtATime
from handlers.redis_address import parse
from handlers.stored import Decoder, FeatureStoreUnavailable, Stored, UnknownLayout, remaining

CHUNK = 262_144
KNOWN = {"type", "redis_type", "client", "connection_string", "key_ttl_seconds", "full_scan_for_deletion",
         "skip_dedup"}  # fmt: skip
PARAMETERS = {"db", "username", "password", "socket_timeout", "socket_connect_timeout"}


@dataclass(frozen=True)
class Address:
    host: str
    port: int
    db: int = 0
    username: str | None = None
    password: str | None = None


def address_of(online: Mapping[str, Any]) -> Address:
    """Of one plain Redis server. Raises UnknownLayout for clusters, sentinels, TLS and other clients."""
    if set(online) - KNOWN or online.get("redis_type", "redis") != "redis":
        raise UnknownLayout("not one plain Redis server")
    if online.get("client", "redis") != "redis":
        raise UnknownLayout("another client")
    servers, parameters = parse(str(online.get("connection_string", "localhost:6379")))
    if set(parameters) - PARAMETERS or len(servers) != 1 or not servers[0].get("port", "").isdecimal():
        raise UnknownLayout("connection parameters that only redis-py knows")
    [server] = servers
    return Address(
        server["host"],
        int(server["port"]),
        int(parameters.get("db", 0)),
        parameters.get("username"),
        parameters.get("password"),
    )


class RedisReader:
    name = "redis"

    def __init__(
        self,
        address: Address,
        project: str,
        view: str,
        features: Sequence[tuple[str, str]],
        join_key: str,
    ) -> None:
        """`features`: name and dtype. Nothing is connected yet: every read that has to tries."""
        self._address = address
        self._decoder = Decoder(features)
        self._nothing: Sequence[bytes | None] = (None,) * (len(features) + 1)
        self._prefix, self._suffix = wire.key_prefix(join_key), project.encode()
        fields = [*(field_of(view, name) for name, _ in features), f"_ts:{view}".encode()]
        self._command_start = f"*{2 + len(fields)}\r\n$5\r\nHMGET\r\n".encode()
        self._command_end = b"\r\n" + b"".join(map(_bulk, fields))
        self._moments: dict[bytes | None, datetime] = {}
        self._socket: socket.socket | None = None
        self._connecting = OneAtATime()

    def read(self, ids: Sequence[str], deadline: float) -> Stored:
        request = b"".join([self._command(user_id) for user_id in ids])
        reused = self._socket is not None
        try:
            try:
                replies = self._exchange(request, len(ids), deadline)
            except ConnectionError:
                if not reused:
                    raise
                # the server was restarted since the last read
                replies = self._exchange(request, len(ids), deadline)
        except (OSError, hiredis.HiredisError) as error:
            raise FeatureStoreUnavailable(type(error).__name__) from error
        return self._stored(replies)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def _command(self, user_id: str) -> bytes:
        key = wire.key_of(self._prefix, user_id) + self._suffix
        return b"%b$%d\r\n%b%b" % (self._command_start, len(key), key, self._command_end)

    def _exchange(self, request: bytes, count: int, deadline: float) -> list[Any]:
        """As many replies, or the connection is closed: half an answer must not be read by the next batch."""
        try:
            if self._socket is None:
                self._socket = self._connecting.call(lambda: _connected(self._address, deadline), deadline)
            return _exchanged(self._socket, request, count, deadline)
        except BaseException:
            self.close()
            raise

    def _stored(self, replies: Sequence[Any]) -> Stored:
        rows: list[Sequence[bytes | None]] = []
        timestamps: list[datetime | None] = []
        corrupt: dict[int, str] = {}
        for position, reply in enumerate(replies):
            moment: datetime | None = None
            if isinstance(reply, hiredis.ReplyError):
                if not str(reply).startswith("WRONGTYPE"):
                    raise FeatureStoreUnavailable(str(reply).split(" ")[0])  # LOADING, MASTERDOWN, NOAUTH...
                corrupt[position] = "the store holds something else under the customer's key"
                reply = self._nothing
            elif (stamp := reply[-1]) is not None:
                try:
                    moment = self._moment(stamp)
                except wire.Corrupt:
                    corrupt[position] = "no readable event timestamp"
            elif any(part is not None for part in reply):
                corrupt[position] = "no event timestamp"
            rows.append(reply)
            timestamps.append(moment)
        return self._decoder.decode(list(zip(*rows, strict=True))[:-1], timestamps, corrupt)

    def _moment(self, stamp: bytes) -> datetime:
        moment = self._moments.get(stamp)
        if moment is None:
            if len(self._moments) > 65_536:
                self._moments.clear()
            moment = self._moments[stamp] = wire.timestamp(stamp)
        return moment


def _connected(address: Address, deadline: float) -> socket.socket:
    """Connected, authenticated, the right database selected. Resolving a name has no timeout of its own."""
    connection = socket.create_connection((address.host, address.port), timeout=remaining(deadline))
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        commands = []
        if address.password is not None:
            user = [] if address.username is None else [address.username]
            commands.append(["AUTH", *user, address.password])
        if address.db:
            commands.append(["SELECT", str(address.db)])
        request = b"".join(
            b"*%d\r\n" % len(command) + b"".join(_bulk(part.encode()) for part in command)
            for command in commands
        )
        for reply in _exchanged(connection, request, len(commands), deadline):
            if isinstance(reply, hiredis.ReplyError):
                raise FeatureStoreUnavailable(str(reply).split(" ")[0])
    except BaseException:
        connection.close()
        raise
    return connection


def _exchanged(connection: socket.socket, request: bytes, count: int, deadline: float) -> list[Any]:
    """Send, and wait for `count` replies. Raises OSError, FeatureStoreUnavailable or hiredis.HiredisError."""
    reader = hiredis.Reader(notEnoughData=_MORE)
    replies: list[Any] = []
    connection.settimeout(remaining(deadline))
    connection.sendall(request)
    while len(replies) < count:
        reply = reader.gets()
        if reply is _MORE:
            connection.settimeout(remaining(deadline))
            content = connection.recv(CHUNK)
            if not content:
                raise ConnectionResetError("the server closed the connection")
            reader.feed(content)
        else:
            replies.append(reply)
    return replies


_MORE: Any = object()


def field_of(view: str, feature: str) -> bytes:
    """The name of a feature's field in a customer's hash."""
    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


def _bulk(content: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(content), content)
