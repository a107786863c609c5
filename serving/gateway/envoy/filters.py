"""The filters of the public listener. A request passes them in this order, an answer in the reverse order."""

import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from handlers.protocol.open_inference_grpc import PROTOBUF
from serving.config import UNLIMITED, GatewayConfig
from serving.gateway.envoy.api import (
    ANSWER_FILTER,
    BRIDGE_FILTER,
    CUSTOMER_FILTER,
    HTTP_FILTER,
    KEYS_FILTER,
    READY_FILTER,
    STATUS_FILTER,
    TYPE,
    USER_FILTER,
)
from serving.gateway.envoy.rate_limit import rate_limit, request_cost
from serving.gateway.keys import SCOPES, Key

SCRIPTS = Path(__file__).resolve().parents[3] / "configs" / "gateway"
NO_ENTRIES = "local ENTRIES = [[]]"
"""The line of keys.lua that the entries of the keys replace."""


def public_filters(config: GatewayConfig, max_request_bytes: int) -> list[dict[str, Any]]:
    return [
        # outermost, so that it counts the statuses that clients see
        _filter("churn.grpc_stats", "grpc_stats.v3.FilterConfig", stats_for_all_methods=False),
        _lua("churn.retry_after", _script("retry_after.lua")),
        _filter("churn.gzip", "compressor.v3.Compressor", **_gzip()),
        _on_some_routes(_lua(STATUS_FILTER, _script("grpc_status.lua"))),
        *([_lua(KEYS_FILTER, _script("keys.lua"))] if config.keys else []),
        *([_rate(config)] if config.keys or config.requests_per_s < UNLIMITED else []),
        _on_some_routes(
            _filter(
                BRIDGE_FILTER,
                "grpc_http1_reverse_bridge.v3.FilterConfig",
                content_type=PROTOBUF,
                # a message's frame states whether it is compressed: the handler reads and writes frames
                withhold_grpc_frames=False,
            )
        ),
        _on_some_routes(_lua(ANSWER_FILTER, _script("grpc_answer.lua"))),
        _on_some_routes(readiness({"name": ":path", "present_match": True})),
        _filter("churn.size", "buffer.v3.Buffer", max_request_bytes=max_request_bytes),
        _on_some_routes(_lua(USER_FILTER, f"{_script('inflate.lua')}\n{_script('user.lua')}")),
        # the key of the checksums is new with each Envoy and is stored nowhere
        _on_some_routes(
            _lua(CUSTOMER_FILTER, _script("customer.lua").replace("@KEY@", secrets.token_hex(16)))
        ),
        _filter("envoy.filters.http.router", "router.v3.Router", suppress_envoy_headers=True),
    ]


def readiness(path: dict[str, Any]) -> dict[str, Any]:
    """Answers 200 on matching paths while a worker of stable answers predictions, else 503."""
    return _filter(
        READY_FILTER,
        "health_check.v3.HealthCheck",
        pass_through_mode=False,
        cluster_min_healthy_percentages={"stable": {"value": 1}},
        headers=[path],
    )


def keys_script(keys: Iterable[Key], config: GatewayConfig) -> str:
    """keys.lua with an entry for each key. It contains the SHA-256 of a key, never the key.

    The entries are part of the source and not of the route's context, which Envoy copies for every request.
    """
    source = _script("keys.lua")
    assert source.count(NO_ENTRIES) == 1
    lines = "".join(f"{_entry(key, config)}\n" for key in keys)
    return source.replace(NO_ENTRIES, f"local ENTRIES = [[\n{lines}]]")


def _entry(key: Key, config: GatewayConfig) -> str:
    """Hash, name, second from which the key is refused (0: none), cost of a request, scopes that it lacks."""
    ends = 0 if key.expires is None else int(key.ends.timestamp())
    missing = [scope for scope in SCOPES if scope not in key.scopes]
    return " ".join(
        (key.sha256, key.name, str(ends), str(request_cost(key, config)), ",".join(("-", *missing)))
    )


def _filter(name: str, message: str, **content: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": HTTP_FILTER + message, **content}}


def _rate(config: GatewayConfig) -> dict[str, Any]:
    return _filter("churn.rate", "local_ratelimit.v3.LocalRateLimit", **rate_limit(config))


def _lua(name: str, source: str) -> dict[str, Any]:
    return _filter(name, "lua.v3.Lua", default_source_code={"inline_string": source})


def _script(file: str) -> str:
    return (SCRIPTS / file).read_text(encoding="utf-8")


def _on_some_routes(content: dict[str, Any]) -> dict[str, Any]:
    """The filter, off by default: a route turns it on (`api.filter_on`)."""
    return {**content, "disabled": True}


def _gzip() -> dict[str, Any]:
    """For clients that accept it, and answers of 1 KiB and more."""
    return {
        "response_direction_config": {"common_config": {"min_content_length": 1024}},
        "compressor_library": {
            "name": "gzip",
            "typed_config": {
                "@type": f"{TYPE}extensions.compression.gzip.compressor.v3.Gzip",
                "compression_level": "BEST_SPEED",
            },
        },
    }
