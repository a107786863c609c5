"""Notices over real connections: what arrives, and a failing sink that does not affect the others."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rollout import notify
from rollout.config import Notify
from rollout.notify import Notice, notifier
from rollout.rules.rule import Verdict
from rollout.state import Event, Rollout
from rollout.targets.target import Candidate

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOTICE = Notice(
    Rollout(
        id="r-1",
        model="churn",
        candidate=Candidate("/new.mar", "n" * 64, "aaaaaaaaaaaa"),
        previous=None,
        phase="stage",
        stage=1,
        paused=False,
        windows=(),
        started=NOW,
        by="ada",
        reason="march",
        plan={},
        since=NOW,
    ),
    Event(
        NOW,
        "roll_back",
        "error_rate: 3 % <is> more than 1 % & harm",
        {"error_rate.canary": 0.03, "odd": float("nan")},
        (Verdict("error_rate", "roll_back", "3 %", {"e": float("inf")}),),
    ),
)


@contextmanager
def server(status: int = 200) -> Iterator[tuple[str, list[Any]]]:
    """An endpoint on loopback, and the JSON that it was sent."""
    got: list[Any] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/hook", got
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def test_a_webhook_gets_the_decision_with_reason_and_numbers() -> None:
    with server() as (url, got):
        sender = notifier(Notify(webhook=url))
        sender(NOTICE)
        sender.close()
    (record,) = got
    assert record["rollout"] == "r-1" and record["candidate"]["version"] == "aaaaaaaaaaaa"
    assert record["action"] == "roll_back" and record["at"] == NOW.isoformat()
    assert record["numbers"] == {"error_rate.canary": 0.03}  # JSON has no NaN
    assert record["verdicts"][0]["answer"] == "roll_back"
    assert sender.sent == {"log": 1, "webhook": 1} and not sender.failed


def test_slack_gets_its_own_format_with_its_special_characters_escaped() -> None:
    with server() as (url, got):
        sender = notifier(Notify(slack=url))
        sender(NOTICE)
        sender.close()
    (message,) = got
    assert "3 % &lt;is&gt; more than 1 % &amp; harm" in message["text"]
    assert message["blocks"][0]["type"] == "section" and ":rewind:" in message["blocks"][0]["text"]["text"]


def test_the_log_has_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="churn.rollout")
    sender = notifier(Notify())
    sender(NOTICE)
    sender.close()
    assert "churn aaaaaaaaaaaa: roll back, 0 %: error_rate" in caplog.text


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/refused", "no address at all", "http://[::bad"])
def test_a_sink_that_fails_is_counted_and_the_others_get_the_notice(url: str) -> None:
    with server() as (good, got):
        sender = notifier(Notify(webhook=url, slack=good))
        sender(NOTICE)
        sender.close()
    assert len(got) == 1
    assert sender.failed == {"webhook": 1} and sender.sent == {"log": 1, "slack": 1}


def test_a_sink_that_refuses_is_counted() -> None:
    with server(500) as (url, _):
        sender = notifier(Notify(webhook=url))
        sender(NOTICE)
        sender.close()
    assert sender.failed == {"webhook": 1}


def test_a_sink_that_hangs_delays_no_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "TIMEOUT_S", 5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # connects, and never answers
        sender = notifier(Notify(webhook=f"http://127.0.0.1:{silent.getsockname()[1]}/"))
        began = time.monotonic()
        for _ in range(notify.WAITING + 5):
            sender(NOTICE)
        assert time.monotonic() - began < 4, "one notice that is waited for takes 5 s"
        assert sender.dropped >= 3
        sender.close(0.2)
        assert time.monotonic() - began < 5


def test_a_secret_in_an_address_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    sender = notifier(Notify(slack="http://127.0.0.1:1/services/T0/SECRET"))
    sender(NOTICE)
    sender.close()
    assert "slack got no notice" in caplog.text and "SECRET" not in caplog.text
