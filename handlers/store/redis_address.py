"""Redis addresses as Feast writes them: `host:port,db=0,username=...,password=...,ssl=true`.

Feast cuts at each comma and colon and reads every value as JSON: an IPv6 host, a password with a comma, or
one such as `1e5` or `true`, would not arrive as it was given. Here hosts may stand in brackets, a value may
stand in double quotes (JSON's), and names and passwords stay text.

| parameter | |
|---|---|
| `db`, `username`, `password` | a user of Redis' ACL needs HMGET, and SELECT where there is a `db` |
| `ssl=true` | TLS; the certificate is of the host's name, by a known authority or by `ssl_ca_certs` |
| `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` | files in PEM: whom to trust, and who the client is |
| `ssl_check_hostname=false` | any name, by that authority |
| `sentinel_username`, `sentinel_password`, `sentinel_ssl` | of the sentinels, which have their own |

With `redis_type: redis_sentinel` the hosts are sentinels, with `redis_cluster` nodes to ask for the others.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from handlers.store.stored import UnknownLayout

TEXTS = ("username", "password", "sentinel_username", "sentinel_password")
SENTINEL = "sentinel_"
KNOWN = {"type", "redis_type", "client", "connection_string", "key_ttl_seconds", "full_scan_for_deletion",
         "skip_dedup", "sentinel_master"}  # fmt: skip
TLS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"}
IGNORED = {"socket_timeout", "socket_connect_timeout", "skip_full_coverage_check", "require_full_coverage"}
"""Our deadline is the read's own."""
PARAMETERS = {"db", "username", "password", "ssl", *TLS, *IGNORED}
Kind = Literal["redis", "redis_sentinel", "redis_cluster"]


@dataclass(frozen=True)
class Tls:
    """What redis-py's parameters of the same names mean, with its defaults."""

    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    check_hostname: bool = True


@dataclass(frozen=True)
class Node:
    """One server, and how it is logged in to."""

    host: str
    port: int
    db: int = 0
    username: str | None = None
    password: str | None = None
    tls: Tls | None = None


@dataclass(frozen=True)
class Address:
    kind: Kind
    nodes: tuple[Node, ...]
    """The server, the sentinels, or some nodes of the cluster."""
    server: Node
    """How the server that holds the data is logged in to; of sentinels and clusters without its host."""
    master: str = ""
    """What the sentinels call it."""


def address_of(online: Mapping[str, Any]) -> Address:
    """Where `online_store` of feature_store.yaml is. Raises UnknownLayout for what only redis-py knows."""
    kind = online.get("redis_type", "redis")
    if set(online) - KNOWN or kind not in ("redis", "redis_sentinel", "redis_cluster"):
        raise UnknownLayout("settings of Redis that this reader does not know")
    if online.get("client", "redis") != "redis":
        raise UnknownLayout("another client")
    servers, parameters = parse(str(online.get("connection_string", "localhost:6379")))
    own = dict(parameters.pop("sentinel_kwargs", {})) if kind == "redis_sentinel" else {}
    if set(parameters) - PARAMETERS or set(own) - PARAMETERS:
        raise UnknownLayout("connection parameters that only redis-py knows")
    if not servers or (kind == "redis" and len(servers) != 1):
        raise UnknownLayout("not one server")
    if not all(server.get("port", "").isdecimal() for server in servers):
        raise UnknownLayout("a server without a port")
    server = _node("", 0, parameters)
    login = _node("", 0, own) if kind == "redis_sentinel" else server
    nodes = tuple(
        Node(one["host"], int(one["port"]), login.db, login.username, login.password, login.tls)
        for one in servers
    )
    return Address(
        kind,
        nodes,
        nodes[0] if kind == "redis" else server,
        str(online.get("sentinel_master", "mymaster")) if kind == "redis_sentinel" else "",
    )


def _node(host: str, port: int, parameters: Mapping[str, Any]) -> Node:
    tls = None
    if parameters.get("ssl"):
        tls = Tls(
            parameters.get("ssl_ca_certs"),
            parameters.get("ssl_certfile"),
            parameters.get("ssl_keyfile"),
            bool(parameters.get("ssl_check_hostname", True)),
        )
    return Node(
        host,
        port,
        int(parameters.get("db", 0)),
        parameters.get("username"),
        parameters.get("password"),
        tls,
    )


def parse(connection: str) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """The servers, each `{host, port}`, and the parameters as redis-py takes them."""
    servers: list[dict[str, str]] = []
    parameters: dict[str, Any] = {}
    of_sentinels: dict[str, Any] = {}
    for part in _parts(connection):
        name, equals, value = part.partition("=")
        if equals and name.startswith(SENTINEL):
            of_sentinels[name.removeprefix(SENTINEL)] = _value(name, value)
        elif equals:
            parameters[name] = _value(name, value)
        elif part:
            servers.append(_server(part))
    if of_sentinels:
        if of_sentinels.get("ssl"):  # the same authority
            of_sentinels |= {name: parameters[name] for name in TLS if name in parameters}
        parameters["sentinel_kwargs"] = of_sentinels
    return servers, parameters


def teach_feast() -> None:
    """Let Feast 0.67 read connections by `parse`, whoever opens a store."""
    from feast.infra.online_stores.redis import RedisOnlineStore

    setattr(RedisOnlineStore, _FEASTS_PARSER, staticmethod(parse))


_FEASTS_PARSER = "_parse_connection_string"


def _parts(connection: str) -> list[str]:
    """Cut at commas, except inside a quoted value."""
    quoted = r'\w+="(?:[^"\\]|\\.)*"(?=,|$)'
    return [found[0] for found in re.finditer(rf"{quoted}|[^,]+", connection)]


def _server(address: str) -> dict[str, str]:
    bracketed = re.fullmatch(r"\[(.+)\](?::(\d+))?", address)
    host, port = bracketed.groups() if bracketed else _split(address)
    return {"host": host, **({"port": port} if port else {})}


def _split(address: str) -> tuple[str, str | None]:
    host, colon, port = address.partition(":")
    return host, port if colon else None


def _value(name: str, value: str) -> Any:
    if name in TEXTS and not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
