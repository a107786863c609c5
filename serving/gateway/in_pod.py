"""The gateway's routes in front of the TorchServe of a pod: KServe's v1 and v2, Open Inference over gRPC.

One Envoy in the same container, on one port for HTTP/1.1 and HTTP/2. It asks for no key, has no TLS and no
limit of rate: what is in front of the pod decides on access. One server is behind it, so that there is no
canary. images/front.py runs this in the container.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.config import UNLIMITED, GatewayConfig
from serving.gateway.envoy.bootstrap import bootstrap
from serving.gateway.envoy.endpoints import load_assignments
from serving.gateway.envoy.instance import EnvoyInstance, watched_text
from serving.gateway.envoy.routes import ServedModel, route_configuration
from serving.gateway.metadata import model_metadata
from serving.sizes import SizeBudget, least_memory
from serving.torchserve.upstream import Upstream

NOWHERE = Path("/dev/null")
OBJECTIVE_MS = 250.0
HEALTH_INTERVAL_S = 2.0


@dataclass(frozen=True)
class Front:
    model: str
    archive: Path
    host: str
    """Address at which Envoy listens."""
    port: int
    upstream_port: int
    """TorchServe's, on loopback."""
    response_timeout_s: float
    """TorchServe's own. Envoy waits a second longer, so that the answer is TorchServe's."""
    max_request_bytes: int


def write_front(front: Front, folder: Path) -> Path:
    """Write Envoy's files into `folder`, and return the file with which it starts.

    Raises ServingError when the archive has no bundle.
    """
    memory = least_memory(front.max_request_bytes)
    config = GatewayConfig(
        keys=False,
        timeout_s=front.response_timeout_s + 1,
        requests_per_s=UNLIMITED,
        burst=UNLIMITED,
        health_interval_s=HEALTH_INTERVAL_S,
        max_memory_bytes=memory,
    ).model_copy(update={"host": front.host})  # no keys beyond loopback: a configuration cannot say this
    instance = EnvoyInstance(front.port, 0, folder, NOWHERE, NOWHERE)
    routes = route_configuration(config, ServedModel(front.model, model_metadata(front.archive, front.model)))
    routes["virtual_hosts"][0]["routes"].insert(0, _ping())
    _write_watched(instance.routes, "config.route.v3.RouteConfiguration", routes)
    for assignment in load_assignments({"stable": [Upstream(front.upstream_port, 0, "")]}):
        file = instance.endpoints(assignment["cluster_name"])
        _write_watched(file, "config.endpoint.v3.ClusterLoadAssignment", assignment)
    budget = SizeBudget(front.max_request_bytes, memory)
    started_with = folder / "bootstrap.json"
    content = bootstrap(config, instance, front.model, budget, OBJECTIVE_MS)
    started_with.write_text(json.dumps(content), encoding="utf-8")
    return started_with


def _ping() -> dict[str, Any]:
    """TorchServe's own answer, for the liveness probe: that Envoy answers is not enough."""
    return {"name": "ping", "match": {"path": "/ping"}, "route": {"cluster": "stable", "timeout": "5s"}}


def _write_watched(file: Path, kind: str, content: dict[str, Any]) -> None:
    file.write_text(watched_text(kind, 1, content), encoding="utf-8")
