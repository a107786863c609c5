"""The two listeners: one for clients, and one on loopback for Prometheus and the supervisor."""

from collections.abc import Mapping
from typing import Any

from serving.addresses import LOOPBACK
from serving.config import GatewayConfig
from serving.gateway.envoy.access_logs import access_logs
from serving.gateway.envoy.api import HTTP_FILTER, TYPE, header_equals
from serving.gateway.envoy.filters import public_filters, readiness
from serving.gateway.envoy.instance import EnvoyInstance, watched
from serving.gateway.envoy.local_replies import local_replies
from serving.gateway.tls import CLIENTS, SERVER
from serving.sizes import SizeBudget


def public_listener(
    config: GatewayConfig, instance: EnvoyInstance, model: str, budget: SizeBudget
) -> dict[str, Any]:
    manager = {
        "stat_prefix": "public",
        "rds": {"route_config_name": "churn", "config_source": watched(instance.routes)},
        "http_filters": public_filters(config, budget.body),
        "access_log": access_logs(instance),
        "local_reply_config": local_replies(model),
        # another server may read dots, double slashes and escaped slashes in a path differently
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
        # a slow client occupies a connection, not a worker
        "request_headers_timeout": "10s",
        "request_timeout": f"{config.timeout_s}s",
        "stream_idle_timeout": f"{2 * config.timeout_s}s",
        "common_http_protocol_options": {
            "idle_timeout": "300s",
            # some clients add such headers and cannot be configured otherwise; no server here reads one
            "headers_with_underscores_action": "DROP_HEADER",
        },
        "http2_protocol_options": {"max_concurrent_streams": 256, **budget.windows()},
        "drain_timeout": "1s",
    }
    address = _address(config.host, instance.port)
    return _listener("public", address, manager, budget, _tls(instance))


def metrics_listener(instance: EnvoyInstance, budget: SizeBudget) -> dict[str, Any]:
    """Envoy's own metrics for Prometheus, and readiness without a key or a certificate.

    Nothing else of the admin API can be reached here.
    """
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
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{HTTP_FILTER}router.v3.Router"},
    }
    manager = {
        "stat_prefix": "metrics",
        "route_config": {"name": "metrics", "virtual_hosts": [host]},
        "http_filters": [readiness(header_equals(":path", "/readyz")), router],
    }
    return _listener("metrics", _address(LOOPBACK, instance.metrics_port), manager, budget, {})


def _listener(
    name: str,
    address: Mapping[str, Any],
    manager: Mapping[str, Any],
    budget: SizeBudget,
    transport: Mapping[str, Any],
) -> dict[str, Any]:
    manager = {
        "@type": f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        **manager,
    }
    return {
        "name": name,
        "address": address,
        "per_connection_buffer_limit_bytes": budget.connection,
        # with it, a second Envoy could bind the port without an error and would get half of the connections
        "enable_reuse_port": False,
        "filter_chains": [
            {
                "filters": [
                    {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
                ],
                **transport,
            }
        ],
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _tls(instance: EnvoyInstance) -> dict[str, Any]:
    """The listener's transport; its certificates are files that can change while Envoy runs."""
    if not instance.secrets:
        return {}

    def secret(name: str) -> dict[str, Any]:
        return {"name": name, "sds_config": watched(instance.secret(name))}

    common: dict[str, Any] = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [secret(SERVER)],
    }
    if CLIENTS in instance.secrets:
        common["validation_context_sds_secret_config"] = secret(CLIENTS)
    return {
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{TYPE}extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": CLIENTS in instance.secrets,
                "common_tls_context": common,
            },
        }
    }
