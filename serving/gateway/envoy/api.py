"""Shared by the files of this folder: small messages of Envoy's API, names of filters and clusters."""

from collections.abc import Mapping
from typing import Any

TYPE = "type.googleapis.com/envoy."
HTTP_FILTER = f"{TYPE}extensions.filters.http."
LUA_ROUTE = f"{HTTP_FILTER}lua.v3.LuaPerRoute"

SLOTS = ("stable", "canary")
"""Each is a cluster of that name, which gets the slot's share of the customers. Stable answers the requests
that the canary cannot answer."""
CANARY_ALONE = "canary_alone"
"""The cluster for copies of stable's requests and for requests that name the canary. Stable never answers
in its place."""

KEYS_FILTER = "churn.keys"
USER_FILTER = "churn.user"
CUSTOMER_FILTER = "churn.customer"
READY_FILTER = "churn.ready"
BRIDGE_FILTER = "churn.grpc_bridge"
STATUS_FILTER = "churn.grpc_status"
ANSWER_FILTER = "churn.grpc_answer"

WEIGHT = "churn.weight"
"""Runtime keys `churn.weight.<slot>`: the slot's share of the customers in percent."""
MIRROR = "churn.mirror"
"""Runtime key: the share of stable's requests that are copied to the canary, in percent."""


def filter_on(config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A route's switch for a filter that is off by default."""
    return {"@type": f"{TYPE}config.route.v3.FilterConfig", "config": config or {}}


def overwrite_header(name: str, value: str) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def header_equals(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "string_match": {"exact": value}}
