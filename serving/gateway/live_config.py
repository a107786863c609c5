"""The configuration that Envoy reads again while it runs: routes, endpoints and certificates."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from itertools import count
from typing import Any

from serving.config import GatewayConfig
from serving.gateway.envoy.endpoints import load_assignments, ports
from serving.gateway.envoy.instance import EnvoyInstance, watched_text
from serving.gateway.envoy.routes import ServedModel, route_configuration
from serving.gateway.keys import replace_privately
from serving.gateway.tls import TlsFiles
from serving.torchserve.upstream import Upstream


class LiveConfig:
    """What is served by which servers, and the files that state it for Envoy."""

    def __init__(self, config: GatewayConfig, served: ServedModel, tls: TlsFiles | None) -> None:
        self.served = served
        self.slots: dict[str, tuple[Upstream, ...]] = {}
        self._config, self._tls = config, tls
        self._version = count(1)

    def write_routes(self, instance: EnvoyInstance) -> None:
        served = replace(self.served, has_canary=bool(self.slots.get("canary")))
        content = route_configuration(self._config, served)
        text = watched_text("config.route.v3.RouteConfiguration", next(self._version), content)
        replace_privately(instance.routes, text)

    def write_endpoints(self, instance: EnvoyInstance) -> None:
        version = next(self._version)
        for assignment in load_assignments(self.slots):
            text = watched_text("config.endpoint.v3.ClusterLoadAssignment", version, assignment)
            replace_privately(instance.endpoints(assignment["cluster_name"]), text)

    def write_secrets(self, instance: EnvoyInstance, now: datetime) -> None:
        """Raises ServingError when the TLS files cannot be used."""
        secrets: Mapping[str, Any] = {} if self._tls is None else self._tls.read(now).secrets()
        for name, secret in secrets.items():
            text = watched_text("extensions.transport_sockets.tls.v3.Secret", next(self._version), secret)
            replace_privately(instance.secret(name), text)

    def is_applied(self, hosts: Mapping[str, Mapping[int, str]]) -> bool:
        """Whether Envoy's hosts (cluster -> port -> health) are the endpoints that were written last."""
        return all(
            set(hosts[assignment["cluster_name"]]) == ports(assignment)
            for assignment in load_assignments(self.slots)
        )
