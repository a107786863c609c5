"""What probes read of a consumer: it is alive while its loop turns, and ready while it reaches its stores."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from prometheus_client import CollectorRegistry

from stream.consumer import StreamConsumer
from stream.errors import StoreAway
from stream.health import LONGEST_TURN_S, Health, answering
from stream.measures import Measures
from stream.topic import Message
from support.stream_workspace import END, message, shop


def test_a_loop_that_stands_is_not_alive() -> None:
    now = [0.0]
    health = Health(clock=lambda: now[0])
    with answering("127.0.0.1:0", CollectorRegistry(), health) as url:
        now[0] = LONGEST_TURN_S - 1
        assert httpx.get(f"{url}/livez").status_code == 200
        now[0] = LONGEST_TURN_S + 1
        assert httpx.get(f"{url}/livez").status_code == 503
        assert "has stood for 121 s" in httpx.get(f"{url}/livez").text
        health.beat()
        assert httpx.get(f"{url}/livez").status_code == 200
        assert httpx.get(f"{url}/else").status_code == 404


class OneMessage:
    """A topic with one message, without time. tests/stream/test_stream_consumer.py has real topics."""

    def __init__(self, value: bytes) -> None:
        self.left = [Message(0, 0, value, b"", 0.0, -1)]

    def read(self, most: int, seconds: float) -> list[Message]:
        found, self.left = self.left, []
        return found

    def wait(self, seconds: float, pending: Sequence[Message]) -> list[Message]:
        return list(pending)

    def hold(self) -> None: ...
    def release(self) -> None: ...
    def commit(self, messages: Sequence[Message]) -> None: ...
    def bury(self, letters: Sequence[tuple[Message, str]]) -> None: ...

    def behind(self) -> int:
        return len(self.left)


def test_a_consumer_is_alive_and_not_ready_while_a_store_is_away(tmp_path: Path) -> None:
    made = shop(tmp_path / "shop", customers=2)
    state = made.state(f"sqlite:///{tmp_path}/state.db")
    now, seen = [0.0], []
    health = Health(clock=lambda: now[0])
    later = (END + timedelta(hours=1)).isoformat()

    def push(_: Any) -> None:
        now[0] += LONGEST_TURN_S - 1  # a slow store; without a beat at each try the sum would be too long
        seen.append((health.live()[0], health.ready()[0]))
        if len(seen) < 4:
            raise StoreAway("redis: away")

    work = made.work(state, lambda: END + timedelta(days=1), push)
    source = OneMessage(message((1, later, 20.0, 1.0, "new")))
    consumer = StreamConsumer(source, work, Measures(CollectorRegistry()), 10, 0.05, 0.1, health)
    consumer.run(lambda: len(seen) == 4)
    state.close()
    assert [live for live, _ in seen] == [200] * 4
    assert [ready for _, ready in seen] == [200, 503, 503, 503]
    assert health.ready() == (200, "ready")
