"""An address at which clients reach one InferenceService without DNS: a proxy that writes its host name.

In a company's cluster the host name of an InferenceService is in DNS. Clients set it in different ways, and
some cannot, so that here Envoy does it, for HTTP/1.1 and for HTTP/2, without a change of anything else.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from serving.gateway.program import envoy_program
from support.waits import free_port, within

TYPE = "type.googleapis.com/envoy."


@contextmanager
def reached_by_name(gateway: str, host: str, folder: Path) -> Iterator[str]:
    """host:port on loopback. `gateway`: URL of the cluster's gateway; `host`: of the InferenceService."""
    port = free_port()
    file = folder / "by-name.json"
    file.write_text(json.dumps(_configuration(port, gateway, host)))
    with (folder / "by-name.log").open("wb") as log:
        command = [str(envoy_program()), "-c", str(file), "--disable-hot-restart", "--log-level", "warn"]
        envoy = subprocess.Popen([*command, "--concurrency", "1"], stdout=log, stderr=log)
    try:
        address = f"127.0.0.1:{port}"
        within(30, lambda: httpx.get(f"http://{address}/v2/health/live").status_code == 200,
               ignored=httpx.TransportError)  # fmt: skip
        yield address
    finally:
        envoy.terminate()
        envoy.wait(10)


def _configuration(port: int, gateway: str, host: str) -> dict[str, Any]:
    to = urlsplit(gateway)
    route = {"match": {"prefix": "/"}, "route": {"cluster": "gateway", "host_rewrite_literal": host}}
    manager = {
        "@type": f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "by_name",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPE}extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    same = {"http_protocol_options": {}, "http2_protocol_options": {}}
    return {
        "static_resources": {
            "listeners": [
                {
                    "address": _address("127.0.0.1", port),
                    "filter_chains": [{"filters": [
                        {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
                    ]}],
                }
            ],
            "clusters": [
                {
                    "name": "gateway",
                    "type": "STRICT_DNS",
                    "typed_extension_protocol_options": {
                        options: {
                            "@type": f"type.googleapis.com/{options}",
                            "use_downstream_protocol_config": same,
                        }
                    },
                    "load_assignment": {
                        "cluster_name": "gateway",
                        "endpoints": [{"lb_endpoints": [
                            {"endpoint": {"address": _address(str(to.hostname), to.port or 80)}}
                        ]}],
                    },
                }
            ],
        }
    }  # fmt: skip


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
