"""What Kubernetes asks process 1 of the serving image."""

import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from support.image_scripts import image_script

ready = image_script("ready")


class Pod:
    """Whether it passes the check, and how often it was looked at."""

    def __init__(self) -> None:
        self.passing, self.looks = True, 0
        self.server = ready.listen("127.0.0.1", 0, self.passes)
        self.address = self.server.server_address

    def passes(self) -> bool:
        self.looks += 1
        return self.passing

    def ask(self, path: str = "/readyz") -> int:
        host, port = self.address
        return httpx.get(f"http://{host}:{port}{path}", timeout=5, trust_env=False).status_code


@pytest.fixture
def pod() -> Iterator[Pod]:
    made = Pod()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_the_check_decides_and_nothing_else_is_there(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "AT_MOST_EVERY_S", 0.0)
    assert pod.ask() == 200
    pod.passing = False
    assert pod.ask() == 503
    pod.passing = True
    assert pod.ask() == 200
    assert pod.ask("/metrics") == 404
    assert pod.looks == 3


def test_whoever_asks_often_makes_no_more_predictions(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "AT_MOST_EVERY_S", 60.0)
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(pod.ask())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 20
    assert pod.looks == 1


def test_callers_that_say_nothing_or_leave_hold_nobody_up_and_write_no_line(
    pod: Pod, capfd: pytest.CaptureFixture[str]
) -> None:
    silent = [socket.create_connection(pod.address) for _ in range(5)]
    assert pod.ask() == 200
    for one in silent:
        one.send(b"GET /readyz HTTP/1.1\r\n\r\n")
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # it ends with a reset
        one.close()
    assert pod.ask() == 200
    assert capfd.readouterr() == ("", "")


def test_an_address_in_use_is_an_error(pod: Pod) -> None:
    with pytest.raises(OSError, match="in use"):
        ready.listen(*pod.address, pod.passes)
