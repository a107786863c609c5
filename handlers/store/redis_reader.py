"""Reads Feast's Redis online store in one round trip per batch: one server, behind sentinels, or a cluster.

A customer is one hash (feast/infra/online_stores/redis.py): a field per feature, named by a hash of view and
feature, and one field for the event time. All HMGET commands are sent in one write to each server.
"""

import struct
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import hiredis
import mmh3

from handlers.store import wire
from handlers.store.decoder import Decoder
from handlers.store.redis_address import Address
from handlers.store.redis_connection import bulk, checked
from handlers.store.redis_servers import Command, servers_of
from handlers.store.stored import FeatureStoreUnavailable, Stored


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
        """`features`: name and dtype. The first read connects, and later ones after a lost connection."""
        self._servers = servers_of(address)
        self._decoder = Decoder(features)
        self._nothing: Sequence[bytes | None] = (None,) * (len(features) + 1)
        self._prefix, self._suffix = wire.key_prefix(join_key), project.encode()
        fields = [*(field_of(view, name) for name, _ in features), f"_ts:{view}".encode()]
        self._command_start = f"*{2 + len(fields)}\r\n$5\r\nHMGET\r\n".encode()
        self._command_end = b"\r\n" + b"".join(map(bulk, fields))

    def read(self, ids: Sequence[str], deadline: float) -> Stored:
        commands = [self._command(user_id) for user_id in ids]
        try:
            return self._stored(self._servers.exchange(commands, deadline))
        except (OSError, hiredis.HiredisError) as error:
            raise FeatureStoreUnavailable(type(error).__name__) from error
        except FeatureStoreUnavailable:
            # after a failover, another server may be the right one; the next read finds out
            self._servers.close()
            raise

    def close(self) -> None:
        self._servers.close()

    def _command(self, user_id: str) -> Command:
        key = wire.key_of(self._prefix, user_id) + self._suffix
        return Command(key, b"%b$%d\r\n%b%b" % (self._command_start, len(key), key, self._command_end))

    def _stored(self, replies: Sequence[Any]) -> Stored:
        rows: list[Sequence[bytes | None]] = []
        timestamps: list[datetime | None] = []
        corrupt: dict[int, str] = {}
        for position, reply in enumerate(replies):
            moment: datetime | None = None
            if isinstance(reply, hiredis.ReplyError):
                if not str(reply).startswith("WRONGTYPE"):
                    checked(reply)
                corrupt[position] = "the store holds something else under the customer's key"
                reply = self._nothing
            elif (stamp := reply[-1]) is not None:
                try:
                    moment = _moment(stamp)
                except wire.Corrupt:
                    corrupt[position] = "no readable event timestamp"
            elif any(part is not None for part in reply):
                corrupt[position] = "no event timestamp"
            rows.append(reply)
            timestamps.append(moment)
        return self._decoder.decode(list(zip(*rows, strict=True))[:-1], timestamps, corrupt)


_moment = lru_cache(65_536)(wire.timestamp)


def field_of(view: str, feature: str) -> bytes:
    """The name of a feature's field in a customer's hash."""
    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))
