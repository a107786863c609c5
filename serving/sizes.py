"""The gateway's limits of memory: for one request, for one connection and for all together."""

from dataclasses import dataclass
from typing import Any

from core.errors import ServingError
from serving.config import GatewayConfig, ServingConfig

FRAMES = 65_536
"""Bytes beside a body: headers, and the frames of HTTP/2 and gRPC."""
LEAST_WINDOW, LARGEST_WINDOW = 65_535, 2**31 - 1
AT_ONCE = 16
"""Bodies of the largest size that must fit into the memory beside Envoy itself."""
ENVOY_ITSELF = 96 * 2**20
API = "type.googleapis.com/envoy."


def least_memory(max_request_bytes: int) -> int:
    """Bytes that Envoy needs for bodies of this size."""
    return ENVOY_ITSELF + AT_ONCE * max_request_bytes


@dataclass(frozen=True)
class SizeBudget:
    body: int
    """Bytes, `serving.max_request_bytes`: the largest request that is buffered, retried or mirrored."""
    memory: int
    """Bytes, `gateway.max_memory_bytes`: near it, further requests are refused."""

    @classmethod
    def of(cls, gateway: GatewayConfig, serving: ServingConfig) -> "SizeBudget":
        """Raises ServingError when the two settings do not fit together."""
        least = least_memory(serving.max_request_bytes)
        if gateway.max_memory_bytes < least:
            raise ServingError(
                f"gateway.max_memory_bytes: {gateway.max_memory_bytes:,} is too little for requests of"
                f" serving.max_request_bytes {serving.max_request_bytes:,}; give {least:,} or more"
            )
        return cls(serving.max_request_bytes, gateway.max_memory_bytes)

    @property
    def connection(self) -> int:
        """Bytes that Envoy buffers for one connection. It neither retries nor mirrors a larger body."""
        return self.body + FRAMES

    def windows(self) -> dict[str, int]:
        """HTTP/2: bytes that a client may send in advance, in one stream and in one connection."""
        stream = min(LARGEST_WINDOW, max(LEAST_WINDOW, self.body))
        connection = min(LARGEST_WINDOW, max(LEAST_WINDOW, 4 * self.connection))
        return {"initial_stream_window_size": stream, "initial_connection_window_size": connection}

    def overload_manager(self, connections: int) -> dict[str, Any]:
        """Envoy checks its heap ten times a second and refuses in steps. Requests in flight are finished.

        Only near the limit, the requests with the largest buffers are reset: their bodies began before the
        refusals and have filled the rest.
        """
        heap = "envoy.resource_monitors.fixed_heap"

        def action(name: str, at: float) -> dict[str, Any]:
            trigger = {"name": heap, "threshold": {"value": at}}
            return {"name": f"envoy.overload_actions.{name}", "triggers": [trigger]}

        return {
            "refresh_interval": "0.1s",
            # 2^16: buffers of 64 KiB and more are attributed to their streams
            "buffer_factory_config": {"minimum_account_to_track_power_of_two": 16},
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{API}extensions.resource_monitors.downstream_connections.v3"
                        ".DownstreamConnectionsConfig",
                        "max_active_downstream_connections": connections,
                    },
                },
                {
                    "name": heap,
                    "typed_config": {
                        "@type": f"{API}extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                        "max_heap_size_bytes": self.memory,
                    },
                },
            ],
            "actions": [
                action("shrink_heap", 0.8),
                action("stop_accepting_requests", 0.85),
                action("disable_http_keepalive", 0.85),
                # a refused request has already filled its connection's buffer, so new connections stop too
                action("stop_accepting_connections", 0.9),
                {
                    "name": "envoy.overload_actions.reset_high_memory_stream",
                    "triggers": [
                        {"name": heap, "scaled": {"scaling_threshold": 0.95, "saturation_threshold": 1.0}}
                    ],
                },
            ],
        }
