"""Parses Redis addresses in Feast's form: `host:port,db=0,username=...,password=...,ssl=true`.

Feast splits at each comma and colon and parses every value as JSON, which changes an IPv6 host, a password
with a comma, and a password such as `1e5` or `true`. Here a host may be in brackets, a value may be in JSON's
double quotes, and names and passwords remain text.

| parameter | |
|---|---|
| `db`, `username`, `password` | a user of Redis' ACL needs HMGET, and SELECT where there is a `db` |
| `ssl=true` | TLS; the certificate has the host's name, from a known authority or one of `ssl_ca_certs` |
| `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` | PEM files: authorities, the client's certificate, its key |
| `ssl_check_hostname=false` | the certificate may have any name |
| `sentinel_username`, `sentinel_password`, `sentinel_ssl` | settings of the sentinels |

With `redis_type: redis_sentinel` the hosts are sentinels, with `redis_cluster` some nodes of the cluster.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from handlers.store.stored import UnknownLayout

TEXTS = ("username", "password", "sentinel_username", "sentinel_password")
SENTINEL = "sentinel_"
KNOWN = {"type", "redis_type", "client", "connection_string", "key_ttl_seconds", "full_scan_for_deletion",
         "skip_dedup", "sentinel_master"}  # fmt: skip
TLS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"}
IGNORED = {"socket_timeout", "socket_connect_timeout", "skip_full_coverage_check", "require_full_coverage"}
"""They have no effect, because each read has its own deadline."""
PARAMETERS = {"db", "username", "password", "ssl", *TLS, *IGNORED}
Kind = Literal["redis", "redis_sentinel", "redis_cluster"]


@dataclass(frozen=True)
class Tls:
    """The parameters `ssl_...` of redis-py, with its defaults."""

    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    check_hostname: bool = True


@dataclass(frozen=True)
class Node:
    """One server, and the login for it."""

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
    """The server with the data. For sentinels and clusters only its login, without host and port."""
    master: str = ""
    """Name of the master at the sentinels."""


def address_of(online: Mapping[str, Any]) -> Address:
    """The address in `online_store`. Raises UnknownLayout for settings that only redis-py supports."""
    kind = online.get("redis_type", "redis")
    if set(online) - KNOWN or kind not in ("redis", "redis_sentinel", "redis_cluster"):
        raise UnknownLayout("settings of Redis that this reader does not support")
    if online.get("client", "redis") != "redis":
        raise UnknownLayout("another client")
    servers, parameters = parse(str(online.get("connection_string", "localhost:6379")))
    own = dict(parameters.pop("sentinel_kwargs", {})) if kind == "redis_sentinel" else {}
    if set(parameters) - PARAMETERS or set(own) - PARAMETERS:
        raise UnknownLayout("connection parameters that only redis-py supports")
    if not servers or (kind == "redis" and len(servers) != 1):
        raise UnknownLayout("not one server")
    if not all(server.get("port", "").isdecimal() for server in servers):
        raise UnknownLayout("a server without a port")
    server = _login(parameters)
    login = _login(own) if kind == "redis_sentinel" else server
    nodes = tuple(replace(login, host=one["host"], port=int(one["port"])) for one in servers)
    return Address(
        kind,
        nodes,
        nodes[0] if kind == "redis" else server,
        str(online.get("sentinel_master", "mymaster")) if kind == "redis_sentinel" else "",
    )


def _login(parameters: Mapping[str, Any]) -> Node:
    """A node without host and port."""
    tls = None
    if parameters.get("ssl"):
        tls = Tls(
            parameters.get("ssl_ca_certs"),
            parameters.get("ssl_certfile"),
            parameters.get("ssl_keyfile"),
            bool(parameters.get("ssl_check_hostname", True)),
        )
    db, username, password = parameters.get("db", 0), parameters.get("username"), parameters.get("password")
    return Node("", 0, int(db), username, password, tls)


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
        if of_sentinels.get("ssl"):  # sentinels use the certificates of the servers
            of_sentinels |= {name: parameters[name] for name in TLS if name in parameters}
        parameters["sentinel_kwargs"] = of_sentinels
    return servers, parameters


def teach_feast() -> None:
    """Make Feast 0.67 parse addresses by `parse`, in every store that this process opens."""
    from feast.infra.online_stores.redis import RedisOnlineStore

    setattr(RedisOnlineStore, _FEASTS_PARSER, staticmethod(parse))


_FEASTS_PARSER = "_parse_connection_string"


def _parts(connection: str) -> list[str]:
    """Split at commas, except inside a quoted value."""
    quoted = r'\w+="(?:[^"\\]|\\.)*"(?=,|$)'
    return [found[0] for found in re.finditer(rf"{quoted}|[^,]+", connection)]


def _server(address: str) -> dict[str, str]:
    bracketed = re.fullmatch(r"\[(.+)\](?::(\d+))?", address)
    host, port = bracketed.groups() if bracketed else address.partition(":")[::2]
    return {"host": host, **({"port": port} if port else {})}


def _value(name: str, value: str) -> Any:
    if name in TEXTS and not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
