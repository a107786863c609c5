"""What Envoy is told at its start: a listener for others, one for Prometheus, and how to treat TorchServe.

Plain data (JSON of Envoy's v3 API); routes and endpoints are files that can change
(serving/gateway/gateway.py).
"""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handlers.identity import NOBODY
from handlers.protocol.open_inference_grpc import PROTOBUF
from serving.config import GatewayConfig
from serving.gateway.endpoints import TOKEN
from serving.gateway.grpc_routes import ANSWER_FILTER, BRIDGE_FILTER, READY_FILTER, STATUS_FILTER
from serving.gateway.keys import COST
from serving.gateway.routes import (
    CANARY_ALONE,
    CUSTOMER_FILTER,
    KEYS_FILTER,
    SLOTS,
    USER_FILTER,
    ready_answers,
)
from serving.gateway.tls import CLIENTS, SERVER
from serving.sizes import SizeBudget

LUA = Path(__file__).resolve().parents[2] / "configs" / "gateway"
BUCKETS = 65_536
"""Names of keys (or addresses, where keys are off) whose use is counted at a time."""
COST_OF_KEY = f"%DYNAMIC_METADATA({KEYS_FILTER}:cost)%"
TYPE = "type.googleapis.com/envoy."
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
FILTER = f"{TYPE}extensions.filters.http."


@dataclass(frozen=True)
class Places:
    """Where this Envoy listens and what it reads, all in its private folder but for the log."""

    port: int
    metrics_port: int
    folder: Path
    access_log: Path
    key_use_log: Path
    tls: Sequence[str] = ()
    """Names of the secrets (serving/gateway/tls.py) that the public listener uses; none: no TLS."""

    def secret(self, name: str) -> Path:
        return self.folder / f"secret-{name}.json"

    @property
    def admin(self) -> Path:
        return self.folder / "admin.sock"

    @property
    def routes(self) -> Path:
        return self.folder / "routes.json"

    @property
    def failures(self) -> Path:
        """Failed requests while there is a canary, by customer (rollout/observers/failures.py)."""
        return self.folder / "failures.log"

    def endpoints(self, cluster_name: str) -> Path:
        """A file each: Envoy takes one assignment from one file."""
        return self.folder / f"endpoints-{cluster_name}.json"


def bootstrap(
    config: GatewayConfig, places: Places, model: str, budget: SizeBudget, objective_ms: float
) -> dict[str, Any]:
    """`objective_ms`: a latency that Envoy is to tell slower requests from faster ones by."""
    public = _public(config, places, model, budget)
    return {
        "node": {"id": "churn", "cluster": "churn"},
        # a socket file that only we can open: who reaches the admin API can stop Envoy and move its traffic
        "admin": {"address": {"pipe": {"path": str(places.admin), "mode": 0o600}}},
        "layered_runtime": {"layers": [{"name": "weights", "admin_layer": {}}]},
        # histograms are brought up to date at each flush; five seconds, the default, is a stage of a drill
        "stats_flush_interval": "0.5s",
        "stats_config": {
            "histogram_bucket_settings": [
                {"match": {"suffix": "upstream_rq_time"}, "buckets": list(time_buckets(objective_ms))}
            ]
        },
        "static_resources": {
            "listeners": [
                _listener("public", config.host, places.port, public, budget, _tls(places)),
                _listener("metrics", "127.0.0.1", places.metrics_port, _metrics(), budget),
            ],
            "clusters": [*_torchserve_clusters(config, places, model), _admin_cluster(places)],
        },
        "overload_manager": budget.overload_manager(connections=4 * config.max_in_flight),
    }


def time_buckets(objective_ms: float) -> tuple[float, ...]:
    """Upper ends in ms of the buckets that requests' times are counted in: 20 a decade, and the objective.

    Envoy measures whole milliseconds, so that below 10 ms each has a bucket of its own.
    """
    decade = (
        1.0,
        1.1,
        1.2,
        1.4,
        1.6,
        1.8,
        2.0,
        2.2,
        2.5,
        2.8,
        3.2,
        3.6,
        4.0,
        4.5,
        5.0,
        5.6,
        6.3,
        7.1,
        8.0,
        9.0,
    )
    ends = {
        *map(float, range(1, 10)),
        *(base * scale for scale in (10, 100, 1000) for base in decade),
        10_000,
        20_000,
        30_000,
        60_000,
    }
    return tuple(sorted({*ends, float(objective_ms)}))


def resources(kind: str, version: str, content: list[dict[str, Any]]) -> str:
    """The text of a file that Envoy watches: `kind` is the message's full name after `envoy.`."""
    typed = [{"@type": TYPE + kind, **resource} for resource in content]
    return json.dumps({"version_info": version, "resources": typed})


def _listener(
    name: str,
    host: str,
    port: int,
    manager: Mapping[str, Any],
    budget: SizeBudget,
    transport: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    manager = {
        "@type": f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        **manager,
    }
    return {
        "name": name,
        "address": {"socket_address": {"address": host, "port_value": port}},
        "per_connection_buffer_limit_bytes": budget.connection,
        # with it, a second Envoy would share the port in silence and take half of the connections
        "enable_reuse_port": False,
        "filter_chains": [
            {
                "filters": [
                    {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
                ],
                **(transport or {}),
            }
        ],
    }


def _tls(places: Places) -> dict[str, Any]:
    """The listener's transport; its certificates are files that can change while it runs."""
    if not places.tls:
        return {}

    def secret(name: str) -> dict[str, Any]:
        return {"name": name, "sds_config": _watched(places.secret(name))}

    common: dict[str, Any] = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [secret(SERVER)],
    }
    if CLIENTS in places.tls:
        common["validation_context_sds_secret_config"] = secret(CLIENTS)
    return {
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{TYPE}extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": CLIENTS in places.tls,
                "common_tls_context": common,
            },
        }
    }


def _public(config: GatewayConfig, places: Places, model: str, budget: SizeBudget) -> dict[str, Any]:
    return {
        "stat_prefix": "public",
        "rds": {"route_config_name": "churn", "config_source": _watched(places.routes)},
        "http_filters": _filters(config, budget.body),
        "access_log": [
            _access_log(places.access_log),
            _failure_log(places.failures),
            _key_use_log(places.key_use_log),
        ],
        "local_reply_config": _local_replies(model),
        # no dots, double or escaped slashes, which another server may read otherwise
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "use_remote_address": True,
        "skip_xff_append": True,
        "server_header_transformation": "OVERWRITE",
        "server_name": "churn",
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "max_request_headers_kb": 16,
        # a client that dawdles holds a connection, not a worker
        "request_headers_timeout": "10s",
        "request_timeout": f"{config.timeout_s}s",
        "stream_idle_timeout": f"{2 * config.timeout_s}s",
        "common_http_protocol_options": {
            "idle_timeout": "300s",
            # of browsers' and CRMs' tools, which nobody can stop from adding them; nothing here reads one
            "headers_with_underscores_action": "DROP_HEADER",
        },
        "http2_protocol_options": {"max_concurrent_streams": 256, **budget.windows()},
        "drain_timeout": "1s",
    }


def _filters(config: GatewayConfig, max_request_bytes: int) -> list[dict[str, Any]]:
    """In the order in which a request meets them; an answer meets them the other way round."""

    def of(name: str, message: str, **content: Any) -> dict[str, Any]:
        return {"name": name, "typed_config": {"@type": FILTER + message, **content}}

    def script(name: str, *files: str) -> dict[str, Any]:
        source = "\n".join((LUA / file).read_text(encoding="utf-8") for file in files)
        return of(name, "lua.v3.Lua", default_source_code={"inline_string": source})

    def on_some_routes(filter_: dict[str, Any]) -> dict[str, Any]:
        return {**filter_, "disabled": True}

    return [
        # outermost, so that it counts the statuses that clients see
        of("churn.grpc_stats", "grpc_stats.v3.FilterConfig", stats_for_all_methods=False),
        script("churn.retry_after", "retry_after.lua"),
        of("churn.gzip", "compressor.v3.Compressor", **_gzip()),
        on_some_routes(script(STATUS_FILTER, "grpc_status.lua")),
        *([script(KEYS_FILTER, "keys.lua")] if config.keys else []),
        of("churn.rate", "local_ratelimit.v3.LocalRateLimit", **_rate_limit(config)),
        on_some_routes(
            of(
                BRIDGE_FILTER,
                "grpc_http1_reverse_bridge.v3.FilterConfig",
                content_type=PROTOBUF,
                # whether a message is compressed stands in its frame: the handler reads and writes it
                withhold_grpc_frames=False,
            )
        ),
        on_some_routes(script(ANSWER_FILTER, "grpc_answer.lua")),
        on_some_routes(
            of(
                READY_FILTER,
                "health_check.v3.HealthCheck",
                pass_through_mode=False,
                cluster_min_healthy_percentages={"stable": {"value": 1}},
                headers=[{"name": ":path", "present_match": True}],
            )
        ),
        of("churn.size", "buffer.v3.Buffer", max_request_bytes=max_request_bytes),
        on_some_routes(script(USER_FILTER, "inflate.lua", "user.lua")),
        on_some_routes(
            of(CUSTOMER_FILTER, "lua.v3.Lua", default_source_code={"inline_string": _customer_lua()})
        ),
        of("envoy.filters.http.router", "router.v3.Router", suppress_envoy_headers=True),
    ]


def _gzip() -> dict[str, Any]:
    """For clients that ask for it, and answers that are worth it."""
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


def _rate_limit(config: GatewayConfig) -> dict[str, Any]:
    """A bucket for each name that a key has, or for each address; what a request costs:
    serving/gateway/keys.py.
    """
    bucket = {
        "max_tokens": config.burst * COST,
        "tokens_per_fill": config.requests_per_s * COST,
        "fill_interval": "1s",
    }
    by_key = {
        "metadata": {
            "descriptor_key": "who",
            "metadata_key": {"key": KEYS_FILTER, "path": [{"key": "name"}]},
            "source": "DYNAMIC",
        }
    }
    by_address: dict[str, Any] = {"remote_address": {}}
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {
        "stat_prefix": "rate",
        # for requests that no bucket below counts: open paths
        "token_bucket": bucket,
        "always_consume_default_token_bucket": False,
        "filter_enabled": {"runtime_key": "churn.rate.enabled", **always},
        "filter_enforced": {"runtime_key": "churn.rate.enforced", **always},
        "rate_limits": [
            {
                "actions": [by_key if config.keys else by_address],
                "hits_addend": {"format": COST_OF_KEY} if config.keys else {"number": COST},
            }
        ],
        # by default 20, and the bucket of one that is put out is full when it returns
        "max_dynamic_descriptors": BUCKETS,
        "descriptors": [
            {"entries": [{"key": "who" if config.keys else "remote_address"}], "token_bucket": bucket}
        ],
        "response_headers_to_add": [{"header": {"key": "retry-after", "value": "1"}}],
        "rate_limited_as_resource_exhausted": True,
    }


def _local_replies(model: str) -> dict[str, Any]:
    """Envoy's own answers as JSON, like TorchServe's."""

    def as_json(status: int, body: Mapping[str, Any], path: str = "") -> dict[str, Any]:
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
        return {
            "filter": {"and_filter": {"filters": [has_status, at_path]}} if path else has_status,
            "body_format_override": {"json_format": dict(body)},
            # also where Envoy refuses before any of its filters: when its memory is full
            "headers_to_add": [
                {"header": {"key": "retry-after", "value": "1"}, "append_action": "ADD_IF_ABSENT"}
                for _ in range(status in (429, 503))
            ],
        }

    ready = {re.escape(path): body for path, body in ready_answers(model).items()}
    ready[rf"/v2/models/{re.escape(model)}/versions/[^/]+/ready"] = {"name": model, "ready": True}
    return {
        "mappers": [
            *(as_json(200, body, path) for path, body in ready.items()),
            *(as_json(503, {**body, "ready": False}, path) for path, body in ready.items()),
            _refused_path(),
            as_json(413, {"error": "the body is larger than serving.max_request_bytes"}),
            as_json(429, {"error": "too many requests; try again later"}),
            as_json(503, {"error": "no server can answer now; try again later", "code": "no_server"}),
            as_json(504, {"error": "no answer in time; try again later", "code": "no_answer"}),
        ]
    }


def _refused_path() -> dict[str, Any]:
    """Envoy refuses such a path before any filter, with an empty body. Our own 400s have one already."""
    reason = "path: slashes, backslashes and zero bytes must not be escaped in it"
    return {
        "filter": _cel("response.code_details == 'path_normalization_failed'"),
        "body_format_override": {"json_format": {"error": reason}},
    }


def _cel(expression: str) -> dict[str, Any]:
    return {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": {
                "@type": f"{TYPE}extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                "expression": expression,
            },
        }
    }


def _access_log(file: Path) -> dict[str, Any]:
    """Who asked for what and how it went; never a path as sent, a query, a body, a key or a user id."""
    fields = {
        "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
        "key": f"%DYNAMIC_METADATA({KEYS_FILTER}:name)%",
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
        "slot": "%UPSTREAM_CLUSTER_RAW%",
        "upstream": "%UPSTREAM_HOST%",
    }
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{TYPE}extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(file),
            "log_format": {"json_format": fields},
        },
    }


def _customer_lua() -> str:
    return (LUA / "customer.lua").read_text(encoding="utf-8").replace("@KEY@", secrets.token_hex(16))


def _failure_log(file: Path) -> dict[str, Any]:
    """Requests on trial that a server failed, those included that another server answered in its place."""
    failed = (
        f"'{CUSTOMER_FILTER}' in metadata.filter_metadata && (response.code >= 500"
        " || upstream.request_attempt_count > 1 || response.grpc_status in [2, 4, 13, 14, 15])"
    )
    fields = {
        "time": "%START_TIME(%s.%6f)%",
        "slot": "%UPSTREAM_CLUSTER_RAW%",
        "who": f"%DYNAMIC_METADATA({CUSTOMER_FILTER}:who)%",
    }
    return {
        "name": "envoy.access_loggers.file",
        "filter": _cel(failed),
        "typed_config": {
            "@type": f"{TYPE}extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(file),
            "log_format": {"json_format": fields},
        },
    }


def _key_use_log(file: Path) -> dict[str, Any]:
    """Which key was used when, for requests that keys.lua marks: one a key and some minutes."""
    marked = {
        "filter": KEYS_FILTER,
        "path": [{"key": "used"}],
        "value": {"bool_match": True},
    }
    return {
        "name": "envoy.access_loggers.file",
        "filter": {"metadata_filter": {"matcher": marked, "match_if_key_not_found": False}},
        "typed_config": {
            "@type": f"{TYPE}extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(file),
            "log_format": {
                "json_format": {
                    "time": "%START_TIME(%Y-%m-%dT%H:%M:%SZ)%",
                    "key": f"%DYNAMIC_METADATA({KEYS_FILTER}:name)%",
                }
            },
        },
    }


def _metrics() -> dict[str, Any]:
    """Prometheus reads Envoy's own numbers on loopback; nothing else of the admin API is there."""
    host = {
        "name": "metrics",
        "domains": ["*"],
        "routes": [
            {
                "match": {"path": "/metrics"},
                "route": {"cluster": "admin", "prefix_rewrite": "/stats/prometheus?usedonly"},
            }
        ],
    }
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{FILTER}router.v3.Router"}}
    # the gateway's own question, which needs neither a key nor a certificate
    ready = {
        "name": "churn.ready",
        "typed_config": {
            "@type": f"{FILTER}health_check.v3.HealthCheck",
            "pass_through_mode": False,
            "cluster_min_healthy_percentages": {"stable": {"value": 1}},
            "headers": [{"name": ":path", "string_match": {"exact": "/readyz"}}],
        },
    }
    return {
        "stat_prefix": "metrics",
        "route_config": {"name": "metrics", "virtual_hosts": [host]},
        "http_filters": [ready, router],
    }


def _torchserve_clusters(config: GatewayConfig, places: Places, model: str) -> list[dict[str, Any]]:
    made = [
        _torchserve(config, places, "stable"),
        _torchserve(config, places, "canary", _stable_instead(config)),
        _torchserve(config, places, CANARY_ALONE),
    ]
    for one in made:
        if one["name"] in SLOTS:
            one["health_checks"] = [_asks_a_worker(config, model)]
    return made


def _tries_again() -> dict[str, Any]:
    """Only what TorchServe has certainly not seen: it was not reached, or not yet sent the request."""
    return {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 2}


def _stable_instead(config: GatewayConfig) -> dict[str, Any]:
    """Whom the canary refuses, drops or keeps waiting, stable answers: a prediction changes nothing, so that
    asking twice harms nobody. What the canary did is counted all the same (`retry.upstream_rq_5xx`).
    """
    rank = "previous_priorities"
    return {
        "retry_on": "5xx",
        "num_retries": 1,
        "per_try_timeout": f"{config.timeout_s / 3:g}s",
        "retry_priority": {
            "name": f"envoy.retry_priorities.{rank}",
            "typed_config": {
                "@type": f"{TYPE}extensions.retry.priority.{rank}.v3.PreviousPrioritiesConfig",
                "update_frequency": 1,
            },
        },
    }


def _torchserve(
    config: GatewayConfig, places: Places, name: str, retries: dict[str, Any] | None = None
) -> dict[str, Any]:
    limits = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    options = {
        "@type": f"type.googleapis.com/{OPTIONS}",
        "explicit_http_config": {"http_protocol_options": {}},
        "retry_policy": retries or _tries_again(),
        "http_filters": [
            {"name": "churn.token", "typed_config": _adds_the_token()},
            {
                "name": "envoy.filters.http.upstream_codec",
                "typed_config": {"@type": f"{FILTER}upstream_codec.v3.UpstreamCodec"},
            },
        ],
    }
    return {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": _watched(places.endpoints(name))},
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {OPTIONS: options},
        "circuit_breakers": {
            "thresholds": [{**dict.fromkeys(limits, config.max_in_flight), "track_remaining": True}]
        },
        # changes reach the threads that forward at once, not gathered over a second
        "common_lb_config": {"update_merge_window": "0s"},
        # a server that is replaced is told so by its removal; its requests on their way are finished
        "ignore_health_on_host_removal": True,
    }


def _adds_the_token() -> dict[str, Any]:
    header = {"key": "authorization", "value": f"%UPSTREAM_METADATA({TOKEN[0]}:{TOKEN[1]})%"}
    return {
        "@type": f"{FILTER}header_mutation.v3.HeaderMutation",
        "mutations": {
            "request_mutations": [
                {"append": {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
            ]
        },
    }


def _asks_a_worker(config: GatewayConfig, model: str) -> dict[str, Any]:
    """A whole prediction: TorchServe's own /ping is healthy before its worker is ready and after it died."""
    body = json.dumps({"instances": [{"user_id": NOBODY}]})
    interval = f"{config.health_interval_s}s"
    headers = {
        "authorization": f"%UPSTREAM_METADATA({TOKEN[0]}:{TOKEN[1]})%",
        "content-type": "application/json",
    }
    return {
        "timeout": "5s",
        "interval": interval,
        "no_traffic_interval": interval,
        "unhealthy_interval": interval,
        "no_traffic_healthy_interval": interval,
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "http_health_check": {
            "path": f"/v1/models/{model}:predict",
            "method": "POST",
            "send": {"text": body.encode().hex()},
            "request_headers_to_add": [
                {"header": {"key": key, "value": value}} for key, value in headers.items()
            ],
            "expected_statuses": [{"start": 200, "end": 201}],
        },
    }


def _admin_cluster(places: Places) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(places.admin)}}}}
    return {
        "name": "admin",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "admin", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _watched(file: Path) -> dict[str, Any]:
    return {
        "path_config_source": {"path": str(file), "watched_directory": {"path": str(file.parent)}},
        "resource_api_version": "V3",
    }
