"""The webhook wakes the governor and does nothing else, whatever a client sends."""

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from core.errors import ConfigError
from pipelines.retraining.webhook import SHORTEST_TOKEN, Webhook, load_token
from support.waits import within

TOKEN = "t" * SHORTEST_TOKEN
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class Governor:
    """Counts wake-ups; each waits until the test lets it end."""

    def __init__(self) -> None:
        self.woken, self.free, self.lines = 0, threading.Event(), list[str]()

    def wake(self) -> str:
        self.woken += 1
        self.free.wait(20)
        return f"decided {self.woken}"


@pytest.fixture
def governor() -> Governor:
    return Governor()


@pytest.fixture
def url(governor: Governor) -> Iterator[str]:
    with Webhook("127.0.0.1", 0, TOKEN, governor.wake, governor.lines.append) as url:
        yield url
        governor.free.set()


def test_any_number_of_resends_wakes_once_more_at_most(url: str, governor: Governor) -> None:
    assert httpx.post(f"{url}/wake", headers=BEARER).status_code == 202
    within(10, lambda: governor.woken == 1)
    for body in (b"", b"{", b'{"status": "resolved"}', b"\xff" * 1000):
        assert httpx.post(f"{url}/wake", headers=BEARER, content=body).status_code == 202
    governor.free.set()
    within(10, lambda: governor.lines == ["decided 1", "decided 2"])
    assert governor.woken == 2


@pytest.mark.parametrize(
    ("headers", "path", "content", "status"),
    [
        ({}, "/wake", b"", 401),
        ({"Authorization": "Bearer wrong"}, "/wake", b"", 401),
        ({"Authorization": TOKEN}, "/wake", b"", 401),
        (BEARER, "/elsewhere", b"", 404),
        (BEARER, "/wake", b"x" * 1_000_001, 413),
    ],
)
def test_other_requests_wake_nothing(
    url: str, governor: Governor, headers: dict[str, str], path: str, content: bytes, status: int
) -> None:
    try:
        assert httpx.post(f"{url}{path}", headers=headers, content=content).status_code == status
    except httpx.WriteError:
        assert status == 413, "the connection ends before the whole body was sent"
    assert httpx.get(f"{url}/livez").status_code == 200
    assert governor.woken == 0


def test_a_token_that_others_can_read_or_guess_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_token(file, "CHURN_RETRAIN_TOKEN")
    file.chmod(0o600)
    assert load_token(file, "CHURN_RETRAIN_TOKEN") == TOKEN
    monkeypatch.setenv("CHURN_RETRAIN_TOKEN", "short")
    with pytest.raises(ConfigError, match="16 or more"):
        load_token(None, "CHURN_RETRAIN_TOKEN")
    monkeypatch.delenv("CHURN_RETRAIN_TOKEN")
    with pytest.raises(ConfigError, match="export CHURN_RETRAIN_TOKEN"):
        load_token(None, "CHURN_RETRAIN_TOKEN")


def test_a_wake_up_that_fails_does_not_end_the_webhook(caplog: pytest.LogCaptureFixture) -> None:
    results = iter([OSError("the disk is full"), ConfigError("retrain.triggers: wrong"), "decided"])
    lines: list[str] = []

    def work() -> str:
        found = next(results)
        if isinstance(found, Exception):
            raise found
        return found

    with Webhook("127.0.0.1", 0, TOKEN, work, lines.append) as url:
        for wanted in (0, 1, 2):
            httpx.post(f"{url}/wake", headers=BEARER)
            within(10, lambda wanted=wanted: len(lines) + len(caplog.records) > wanted)
    assert lines == ["retrain.triggers: wrong", "decided"]
    assert "the disk is full" in caplog.text
