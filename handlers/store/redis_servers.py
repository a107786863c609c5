"""Sends commands to the right Redis servers: one server, a master behind sentinels, or nodes of a cluster.

Every class returns as many replies as there are commands, in their order, or raises FeatureStoreUnavailable,
OSError or hiredis.HiredisError. Before it raises, it closes connections with an unread part of a reply.
"""

import binascii
import ssl
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import hiredis

from handlers.store.deadline import remaining
from handlers.store.redis_address import Address, Node
from handlers.store.redis_connection import Connection, Connector, checked, encoded, words
from handlers.store.stored import FeatureStoreUnavailable

SLOTS = 16_384
MOST_REDIRECTIONS = 5


class Command(NamedTuple):
    key: bytes
    encoded: bytes


class Servers(Protocol):
    def exchange(self, commands: Sequence[Command], deadline: float) -> list[Any]: ...

    def close(self) -> None: ...


def servers_of(address: Address) -> Servers:
    if address.kind == "redis_cluster":
        return Cluster(address.nodes)
    if address.kind == "redis_sentinel":
        return Master(address)
    return One(address.server)


class One:
    """A server with a fixed address."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._connector = Connector()
        self._connection: Connection | None = None

    def exchange(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        reused = self._connection is not None
        try:
            return self._exchange(commands, deadline)
        except (ConnectionError, ssl.SSLError):
            if not reused:
                raise
            return self._exchange(commands, deadline)  # the server was restarted since the last read

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _exchange(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        try:
            if self._connection is None:
                self._connection = self._connect(deadline)
            self._connection.send(b"".join([command.encoded for command in commands]), deadline)
            return self._connection.receive(len(commands), deadline)
        except BaseException:
            self.close()
            raise

    def _connect(self, deadline: float) -> Connection:
        return self._connector.connect(self._node, deadline)


class Master(One):
    """The master, whose address the sentinels return. They are requested again for each new connection.

    After a failover, the sentinels close the connections to the old master.
    """

    def __init__(self, address: Address) -> None:
        super().__init__(address.server)
        self._sentinels = list(address.nodes)
        self._name = address.master

    def _connect(self, deadline: float) -> Connection:
        failure: Exception = FeatureStoreUnavailable(f"no sentinel has the address of {self._name}")
        for sentinel in list(self._sentinels):
            try:
                master = self._named_by(sentinel, deadline)
                connection = self._connector.connect(master, deadline)
            except (OSError, hiredis.HiredisError, FeatureStoreUnavailable) as error:
                failure = error
                remaining(deadline)
                continue
            try:
                [role, *_] = words(connection.request("ROLE", deadline=deadline))
            except BaseException:
                connection.close()
                raise
            if role == "master":
                # try this sentinel first from now on
                self._sentinels.remove(sentinel)
                self._sentinels.insert(0, sentinel)
                return connection
            connection.close()  # this sentinel has not noticed the failover yet
            failure = FeatureStoreUnavailable("the sentinels name a replica")
        raise failure

    def _named_by(self, sentinel: Node, deadline: float) -> Node:
        connection = self._connector.connect(sentinel, deadline)
        try:
            named = connection.request("SENTINEL", "get-master-addr-by-name", self._name, deadline=deadline)
        finally:
            connection.close()
        if named is None:
            raise FeatureStoreUnavailable(f"the sentinel has no master {self._name}")
        host, port = words(named)
        return replace(self._node, host=host, port=int(port))


class Cluster:
    """A cluster: each command is sent to the node with the slot of its key, to all nodes at once."""

    def __init__(self, seeds: Sequence[Node]) -> None:
        self._seeds = list(seeds)
        self._login = seeds[0]
        self._connector = Connector()
        self._connections: dict[Node, Connection] = {}
        self._node_of_slot: dict[int, Node] = {}

    def exchange(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        reused = bool(self._node_of_slot)
        try:
            return self._exchange(commands, deadline)
        except OSError:
            if not reused:
                raise
            # a node is gone; try again with the slots that the other nodes report now
            return self._exchange(commands, deadline)

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._node_of_slot.clear()

    def _exchange(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        try:
            if not self._node_of_slot:
                self._node_of_slot = self._slots(deadline)
            return self._redirected(commands, deadline)
        except BaseException:
            self.close()
            raise

    def _redirected(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        replies: list[Any] = [None] * len(commands)
        targets = {at: (self._node(command.key), b"") for at, command in enumerate(commands)}
        for _ in range(MOST_REDIRECTIONS):
            redirected: dict[int, tuple[Node, bytes]] = {}
            for at, reply in self._at_nodes(commands, targets, deadline).items():
                elsewhere = self._elsewhere(reply, targets[at][0])
                if elsewhere is None:
                    replies[at] = reply
                else:
                    redirected[at] = elsewhere
            if not redirected:
                return replies
            targets = redirected
        raise FeatureStoreUnavailable("the cluster redirects without end")

    def _at_nodes(
        self, commands: Sequence[Command], targets: dict[int, tuple[Node, bytes]], deadline: float
    ) -> dict[int, Any]:
        """Position -> reply. Commands are sent to all nodes before the first reply is read."""
        by_node: dict[Node, list[int]] = {}
        for at, (node, _) in targets.items():
            by_node.setdefault(node, []).append(at)
        for node, positions in by_node.items():
            requests = b"".join([targets[at][1] + commands[at].encoded for at in positions])
            self._connection(node, deadline).send(requests, deadline)
        found: dict[int, Any] = {}
        for node, positions in by_node.items():
            connection = self._connections[node]
            for at in positions:
                if targets[at][1]:
                    checked(connection.receive(1, deadline)[0])  # of ASKING
                [found[at]] = connection.receive(1, deadline)
        return found

    def _elsewhere(self, reply: Any, node: Node) -> tuple[Node, bytes] | None:
        """The target of a redirected command, and what to send before it; None for any other reply."""
        if not isinstance(reply, hiredis.ReplyError):
            return None
        word, *rest = str(reply).split(" ")
        if word not in ("MOVED", "ASK") or len(rest) != 2:
            return None
        slot, place = rest
        host, _, port = place.rpartition(":")
        there = replace(self._login, host=host or node.host, port=int(port))
        if word == "ASK":  # the slot is being moved, and this key is moved already
            return there, encoded("ASKING")
        self._node_of_slot[int(slot)] = there
        return there, b""

    def _node(self, key: bytes) -> Node:
        node = self._node_of_slot.get(slot_of(key))
        if node is None:
            raise FeatureStoreUnavailable("CLUSTERDOWN")
        return node

    def _connection(self, node: Node, deadline: float) -> Connection:
        connection = self._connections.get(node)
        if connection is None:
            connection = self._connections[node] = self._connector.connect(node, deadline)
        return connection

    def _slots(self, deadline: float) -> dict[int, Node]:
        failure: Exception = FeatureStoreUnavailable("no node of the cluster answers")
        for seed in list(self._seeds):
            try:
                ranges = self._connection(seed, deadline).request("CLUSTER", "SLOTS", deadline=deadline)
            except (OSError, hiredis.HiredisError, FeatureStoreUnavailable) as error:
                failure = error
                self._connections.pop(seed, None)
                remaining(deadline)
                continue
            found: dict[int, Node] = {}
            for first, last, (host, port, *_), *_ in ranges:
                node = replace(self._login, host=(host or b"").decode() or seed.host, port=int(port))
                found |= dict.fromkeys(range(first, last + 1), node)
            # any of these nodes can report the slots the next time
            self._seeds = [*dict.fromkeys([*found.values(), *self._seeds])]
            return found
        raise failure


def slot_of(key: bytes) -> int:
    """CRC16 of the key, or of the text in its first braces (Redis cluster specification, hash tags)."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1) if start >= 0 else -1
    tagged = key[start + 1 : end] if end > start + 1 else key
    return binascii.crc_hqx(tagged, 0) % SLOTS
