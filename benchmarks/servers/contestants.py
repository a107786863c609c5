"""Who takes part: a session of ours alone, and one a rival in which two of ours take part as its measure."""

from collections.abc import Mapping

from benchmarks.servers.ground import Ground, Running, Start, lay
from benchmarks.servers.own import noop, ours, through_the_gateway
from benchmarks.servers.rivals import RIVALS

__all__ = ["CONTESTANTS", "SESSIONS", "Ground", "Running", "Start", "lay"]

OURS, GATEWAY, TLS = "ours, throughput", "gateway, throughput", "gateway with TLS, throughput"
LIMIT, LIMIT_READER, LIMIT_FEATURES = (
    "no-op, TorchServe's reader",
    "no-op, our reader",
    "no-op, our reader and features",
)
LONE_OURS, LONE_GATEWAY = "ours, latency", "gateway, latency"
OWN: Mapping[str, Start] = {
    LIMIT: noop("throughput"),
    LIMIT_READER: noop("throughput", "messages"),
    LIMIT_FEATURES: noop("throughput", "features"),
    OURS: ours("throughput"),
    GATEWAY: through_the_gateway("throughput"),
    TLS: through_the_gateway("throughput", tls=True),
    LONE_OURS: ours("latency"),
    LONE_GATEWAY: through_the_gateway("latency"),
}
MEASURE = (OURS, GATEWAY, LONE_OURS)
"""Of ours, those that each rival is measured beside, in the same rounds."""
SESSIONS: Mapping[str, Mapping[str, Start]] = {
    "ours": OWN,
    **{name: {one: OWN[one] for one in MEASURE} | dict(servers) for name, servers in RIVALS.items()},
}
CONTESTANTS: Mapping[str, Start] = {name: start for one in SESSIONS.values() for name, start in one.items()}
