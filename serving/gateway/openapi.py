"""The OpenAPI 3.1 document of all REST routes, with all requests and all answers.

The gateway serves it at /openapi.json for its model; docs/openapi.json is the document for any model. The
bodies are those of handlers/protocol/protocols.py; their schemas are in serving/gateway/openapi_schemas.py.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from handlers.protocol.open_inference_json import BINARY, JSON_LENGTH
from serving.config import ServingConfig
from serving.gateway.openapi_schemas import reference, schemas

PATH = "/openapi.json"
REFUSALS = {
    400: "The request, and which field of it.",
    401: "No API key, none that is known, or one that has ended.",
    403: "The API key has not the scope for this.",
    404: "No such customer, model or version.",
    413: "Larger than `serving.max_request_bytes`, as sent or once it is decompressed.",
    415: "Compressed in another way than gzip or deflate.",
    422: "The model's policies refuse this customer.",
    429: "Too many requests with this key; `Retry-After` says when to come back.",
    503: "Not now; `Retry-After` says when to come back.",
    504: "No answer in time.",
}


def _with_version(operation: Mapping[str, Any], versions: Sequence[str]) -> dict[str, Any]:
    """The same operation with the model's version in its path."""
    schema = {"enum": list(versions)} if versions else {"pattern": "^[A-Za-z0-9._-]+$"}
    parameter = {
        "name": "version",
        "in": "path",
        "required": True,
        "description": "As in the model's metadata.",
        "schema": {"type": "string", **schema},
    }
    not_found = {"404": _refusal(404)}
    return {
        **operation,
        "operationId": f"{operation['operationId']}-version",
        "parameters": [parameter],
        "responses": operation["responses"] | not_found,
    }


def document(
    model: str, metadata: Mapping[str, Any], max_instances: int, keys: bool = True
) -> dict[str, Any]:
    """`metadata`: the model's metadata in Open Inference Protocol v2; {}: the document for any model."""
    versions = metadata.get("versions", ())
    security: list[dict[str, list[str]]] = [{"key": []}, {"bearer": []}] if keys else []
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Churn predictions",
            "version": "1",
            "description": "One customer has one score, the same bits by every protocol and in every batch.",
        },
        **({"security": security} if keys else {}),
        "paths": _predictions(model, versions) | _descriptions(model, versions),
        "components": {
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
            "schemas": schemas(metadata, max_instances),
        },
    }


def _predictions(model: str, versions: Sequence[str]) -> dict[str, Any]:
    infer = _post("infer", "One tensor of customers, answered with tensors.", "InferRequest", "InferAnswer")
    # Triton's binary extension: JSON, then the tensors as raw bytes
    infer["responses"]["200"]["content"][BINARY] = {}
    infer["responses"]["200"]["headers"] |= {JSON_LENGTH: {"schema": {"type": "string"}}}
    return {
        f"/predictions/{model}": {
            "post": _post("predictions", "One customer, or a list of them.", "NativeRequest", "NativeAnswer")
        },
        f"/explanations/{model}": {
            "post": _post(
                "explanations", "The same, with attributions and reasons.", "NativeRequest", "NativeAnswer"
            )
        },
        f"/v1/models/{model}:predict": {"post": _post("predict", "KServe v1.", "V1Request", "V1Answer")},
        f"/v1/models/{model}:explain": {
            "post": _post("explain", "KServe v1, with attributions and reasons.", "V1Request", "V1Answer")
        },
        f"/v2/models/{model}/infer": {"post": infer},
        f"/v2/models/{model}/versions/{{version}}/infer": {"post": _with_version(infer, versions)},
    }


def _descriptions(model: str, versions: Sequence[str]) -> dict[str, Any]:
    """GET; HEAD is possible on each of these paths too."""
    ready = {"type": "object", "required": ["ready"], "properties": {"ready": {"type": "boolean"}}}
    anything = {"type": "object"}
    metadata = reference("ModelMetadata")
    return {
        "/": {"get": _get("alive", "The gateway listens.", anything)},
        PATH: {"get": _get("openapi", "This document.", anything)},
        "/v2": {"get": _get("server", "The server.", reference("ServerMetadata"))},
        "/v2/health/live": {"get": _get("live", "The gateway listens.", anything, open_=True)},
        "/livez": {"get": _get("livez", "The gateway listens.", anything, open_=True)},
        **{
            f"/{name}": {"get": _get(name, "A worker answers real predictions.", ready, ready, open_=True)}
            for name in ("readyz", "healthz")
        },
        "/v2/health/ready": {
            "get": _get("ready", "A worker answers real predictions.", ready, ready, open_=True)
        },
        "/v1/models": {"get": _get("models", "The models.", anything)},
        f"/v1/models/{model}": {"get": _get("model", "Whether it is ready.", ready, ready)},
        f"/v2/models/{model}": {"get": _get("metadata", "The model's tensors.", metadata)},
        f"/v2/models/{model}/ready": {"get": _get("model-ready", "Whether it is ready.", ready, ready)},
        f"/v2/models/{model}/versions/{{version}}": {
            "get": _with_version(_get("metadata", "The model's tensors.", metadata), versions)
        },
        f"/v2/models/{model}/versions/{{version}}/ready": {
            "get": _with_version(_get("model-ready", "Whether it is ready.", ready, ready), versions)
        },
    }


def _post(name: str, summary: str, request: str, answer: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": reference(request)}},
        },
        "responses": {
            "200": {
                "description": "Scored; in a list each customer has a score or an `error`.",
                "headers": {"traceparent": {"schema": {"type": "string"}}},
                "content": {"application/json": {"schema": reference(answer)}},
            },
            **{str(status): _refusal(status) for status in REFUSALS},
        },
    }


def _get(
    name: str,
    summary: str,
    schema: Mapping[str, Any],
    not_ready: Mapping[str, Any] | None = None,
    open_: bool = False,
) -> dict[str, Any]:
    refused = [400, *([] if open_ else [401, 403]), 429]
    responses: dict[str, Any] = {
        "200": {"description": "Yes.", "content": {"application/json": {"schema": schema}}},
        **{str(status): _refusal(status) for status in refused},
    }
    if not_ready is not None:
        responses["503"] = {
            "description": "No.",
            "headers": _RETRY_AFTER,
            "content": {"application/json": {"schema": not_ready}},
        }
    return {
        "operationId": name,
        "summary": summary,
        **({"security": []} if open_ else {}),
        "responses": responses,
    }


_RETRY_AFTER: Mapping[str, Any] = {"Retry-After": {"schema": {"type": "string", "pattern": "^[0-9]+$"}}}


def _refusal(status: int) -> dict[str, Any]:
    content = {"application/json": {"schema": reference("Error")}}
    headers = {"headers": _RETRY_AFTER} if status in (429, 503) else {}
    return {"description": REFUSALS[status], **headers, "content": content}


def _print() -> None:
    """Write docs/openapi.json to the standard output."""
    sys.stdout.write(json.dumps(document("churn", {}, ServingConfig().max_instances), indent=1) + "\n")


if __name__ == "__main__":
    _print()
