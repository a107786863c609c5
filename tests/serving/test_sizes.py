"""The gateway's buffers are limited, whatever clients send and however slowly."""

import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from core.errors import ServingError
from serving.config import GatewayConfig, ServingConfig
from serving.gateway.process import Gateway
from serving.sizes import SizeBudget
from support.served_bundle import files_of
from support.waits import within

MIB = 2**20
MEMORY = 160 * MIB
LOOK_S = 0.1
"""Between two of Envoy's checks of its heap, so much may arrive: 45 MB on a busy machine."""
LIVE = "/v2/health/live"


def test_bodies_that_never_end_do_not_fill_the_memory(tmp_path: Path) -> None:
    """800 clients send 900 KB of a megabyte each and then stop: 720 MB if Envoy buffered all of it."""
    config = GatewayConfig(keys=False, max_memory_bytes=MEMORY)
    with Gateway(config, ServingConfig(), files_of(tmp_path)) as ours, ExitStack() as connections:
        place, process = urlsplit(ours.url), psutil.Process(ours.pid)

        def live() -> int:
            try:
                return httpx.get(ours.url + LIVE, trust_env=False, timeout=2).status_code
            except httpx.TransportError:
                return 0

        assert live() == 200
        head = b"POST /predictions/churn HTTP/1.1\r\nHost: churn\r\nContent-Length: 1000000\r\n\r\n"
        held = []
        for number in range(800):
            if number % 50 == 0:
                time.sleep(3 * LOOK_S)
            client = connections.enter_context(
                socket.create_connection((place.hostname, place.port), timeout=5)
            )
            client.settimeout(0.2)
            with suppress(OSError):  # refused, or Envoy has stopped reading
                client.sendall(head + b" " * 900_000)
            held.append(process.memory_info().rss)
        assert live() in (0, 503)
        # above the heap: what arrived between two checks, and freed memory that was not returned yet
        assert max(held) < 2.5 * MEMORY
        connections.close()
        within(20, lambda: live() == 200)


@pytest.mark.parametrize("body", [1_000, 1_048_576, 20_000_000])
def test_sizes_follow_from_the_largest_request(body: int) -> None:
    gateway = GatewayConfig(max_memory_bytes=2**30)
    budget = SizeBudget.of(gateway, ServingConfig(max_request_bytes=body))
    assert budget.connection > body, "else it is neither tried again nor copied to a canary"
    assert 65_535 <= budget.windows()["initial_stream_window_size"] <= 2**31 - 1


def test_a_larger_request_needs_more_memory() -> None:
    with pytest.raises(ServingError, match=r"gateway\.max_memory_bytes.*serving\.max_request_bytes"):
        SizeBudget.of(GatewayConfig(), ServingConfig(max_request_bytes=2**30))
