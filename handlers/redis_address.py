"""Redis addresses as Feast writes them: `host:port,db=0,username=...,password=...`.

Feast cuts at each comma and colon and reads every value as JSON: an IPv6 host, a password with a comma, or
one such as `1e5` or `true`, would not arrive as it was given. Here hosts may stand in brackets, a value may
stand in double quotes (JSON's), and names and passwords stay text.
"""

import json
import re
from typing import Any

TEXTS = ("username", "password")


def parse(connection: str) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """The servers, each `{host, port}`, and the parameters."""
    servers: list[dict[str, str]] = []
    parameters: dict[str, Any] = {}
    for part in _parts(connection):
        name, equals, value = part.partition("=")
        if equals:
            parameters[name] = _value(name, value)
        elif part:
            servers.append(_server(part))
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
