"""The three logs of the public listener: all requests, failed requests by customer, use of API keys."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.gateway.envoy.api import CUSTOMER_FILTER, KEYS_FILTER, TYPE
from serving.gateway.envoy.instance import EnvoyInstance

KEY_NAME = f"%DYNAMIC_METADATA({KEYS_FILTER}:name)%"
SLOT = "%UPSTREAM_CLUSTER_RAW%"


def access_logs(instance: EnvoyInstance) -> list[dict[str, Any]]:
    return [
        _all_requests(instance.access_log),
        _failures(instance.failures),
        _key_use(instance.key_use_log),
    ]


def _all_requests(file: Path) -> dict[str, Any]:
    """Never contains a path as sent, a query, a body, a key or a user id."""
    fields = {
        "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
        "key": KEY_NAME,
        "method": "%REQ(:METHOD)%",
        "route": "%ROUTE_NAME%",
        "protocol": "%PROTOCOL%",
        "status": "%RESPONSE_CODE%",
        "grpc_status": "%GRPC_STATUS%",
        "flags": "%RESPONSE_FLAGS%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "traceparent": "%REQ(TRACEPARENT):55%",
        "received_bytes": "%BYTES_RECEIVED%",
        "sent_bytes": "%BYTES_SENT%",
        "duration_ms": "%DURATION%",
        "slot": SLOT,
        "upstream": "%UPSTREAM_HOST%",
    }
    return _file_log(file, fields)


def _failures(file: Path) -> dict[str, Any]:
    """Requests that a server failed while there was a canary, also those that another server then answered.

    gRPC statuses: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and DATA_LOSS.
    """
    failed = (
        f"'{CUSTOMER_FILTER}' in metadata.filter_metadata && (response.code >= 500"
        " || upstream.request_attempt_count > 1 || response.grpc_status in [2, 4, 13, 14, 15])"
    )
    fields = {
        "time": "%START_TIME(%s.%6f)%",
        "slot": SLOT,
        "who": f"%DYNAMIC_METADATA({CUSTOMER_FILTER}:who)%",
    }
    return _file_log(file, fields, cel(failed))


def _key_use(file: Path) -> dict[str, Any]:
    """Requests that configs/gateway/keys.lua marks: for each key one request in some minutes."""
    marked = {"filter": KEYS_FILTER, "path": [{"key": "used"}], "value": {"bool_match": True}}
    fields = {"time": "%START_TIME(%Y-%m-%dT%H:%M:%SZ)%", "key": KEY_NAME}
    return _file_log(file, fields, {"metadata_filter": {"matcher": marked, "match_if_key_not_found": False}})


def _file_log(
    file: Path, fields: Mapping[str, str], condition: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """One JSON object with these fields for each request that meets the condition."""
    return {
        "name": "envoy.access_loggers.file",
        **({} if condition is None else {"filter": condition}),
        "typed_config": {
            "@type": f"{TYPE}extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(file),
            "log_format": {"json_format": fields},
        },
    }


def cel(expression: str) -> dict[str, Any]:
    """A condition in the Common Expression Language."""
    return {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": {
                "@type": f"{TYPE}extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                "expression": expression,
            },
        }
    }
