"""Envoy's own answers as JSON, with the fields of TorchServe's answers."""

import re
from collections.abc import Mapping
from typing import Any

from serving.gateway.envoy.access_logs import cel
from serving.gateway.envoy.routes import ready_answers


def local_replies(model: str) -> dict[str, Any]:
    ready = {re.escape(path): body for path, body in ready_answers(model).items()}
    ready[rf"/v2/models/{re.escape(model)}/versions/[^/]+/ready"] = {"name": model, "ready": True}
    return {
        "mappers": [
            *(_as_json(200, body, path) for path, body in ready.items()),
            *(_as_json(503, {**body, "ready": False}, path) for path, body in ready.items()),
            _refused_path(),
            _as_json(413, {"error": "the body is larger than serving.max_request_bytes"}),
            _as_json(429, {"error": "too many requests; try again later"}),
            _as_json(503, {"error": "no server can answer now; try again later", "code": "no_server"}),
            _as_json(504, {"error": "no answer in time; try again later", "code": "no_answer"}),
        ]
    }


def _as_json(status: int, body: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """The body for this status, on the paths that the regular expression matches; empty: on all paths."""
    has_status = {
        "status_code_filter": {
            "comparison": {
                "op": "EQ",
                "value": {"default_value": status, "runtime_key": f"churn.reply.{status}"},
            }
        }
    }
    at_path = {
        "header_filter": {"header": {"name": ":path", "string_match": {"safe_regex": {"regex": path}}}}
    }
    retry_after = {"header": {"key": "retry-after", "value": "1"}, "append_action": "ADD_IF_ABSENT"}
    return {
        "filter": {"and_filter": {"filters": [has_status, at_path]}} if path else has_status,
        "body_format_override": {"json_format": dict(body)},
        # needed here for refusals that pass no filter, as when Envoy's memory is full
        "headers_to_add": [retry_after] if status in (429, 503) else [],
    }


def _refused_path() -> dict[str, Any]:
    """Envoy refuses such a path before any filter, with an empty body. Our own 400s have a body already."""
    reason = "path: slashes, backslashes and zero bytes must not be escaped in it"
    return {
        "filter": cel("response.code_details == 'path_normalization_failed'"),
        "body_format_override": {"json_format": {"error": reason}},
    }
