"""Debian's Alertmanager with the configuration of this repository, and receivers in the form of Slack's
and PagerDuty's; skipped where the program is not installed."""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from support.alert_rules import MONITORING
from support.waits import free_port, within

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
needs_alertmanager = pytest.mark.skipif(
    PROGRAM is None, reason="there is no Alertmanager here: apt-get install prometheus-alertmanager"
)
RETRAIN_TOKEN = "t" * 32
SECRETS = "/etc/alertmanager/secrets"
TIMES = {"group_wait": "1s", "group_interval": "1s"}
"""Instead of the configured ones, so that a test need not wait for minutes."""


@dataclass
class Receivers:
    """An HTTP server at `port` that accepts messages by path: /slack, /pagerduty. It may be away."""

    port: int = field(default_factory=free_port)
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Path and content, in the order of arrival."""
    refused: int = 0
    """Messages that were answered 503."""
    refusing: bool = False
    _server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        receivers = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if receivers.refusing:
                    receivers.refused += 1
                    self.send_response(503)
                else:
                    receivers.messages.append((self.path, content))
                    # Slack answers 200, PagerDuty 202
                    self.send_response(202 if self.path == "/pagerduty" else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def at(self, path: str) -> list[dict[str, Any]]:
        return [content for one, content in self.messages if one == path]

    @property
    def pages(self) -> list[tuple[str, str]]:
        """Action (`trigger` or `resolve`) and key of each message to PagerDuty."""
        return [(one["event_action"], one["dedup_key"]) for one in self.at("/pagerduty")]

    @property
    def slack(self) -> list[str]:
        """The title of each message to Slack."""
        return [one["attachments"][0]["title"] for one in self.at("/slack")]


@contextmanager
def receiving() -> Iterator[Receivers]:
    made = Receivers()
    made.start()
    try:
        yield made
    finally:
        made.stop()


class Alertmanager:
    """The program with a data folder that lasts over `stop` and `start`."""

    def __init__(self, folder: Path, receivers: Receivers, wake: str, wakes_s: int = 1) -> None:
        """`wake`: the governor's address. `wakes_s`: seconds between two wake-ups for one alert."""
        self.folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        source = MONITORING / "alertmanager"
        shutil.copytree(source, folder / "config")
        text = (source / "alertmanager.yml").read_text(encoding="utf-8")
        config: dict[str, Any] = yaml.safe_load(text.replace(SECRETS, f"{folder}/config/secrets"))
        here = f"http://127.0.0.1:{receivers.port}"
        secrets = {
            "slack_url": f"{here}/slack",
            "pagerduty_routing_key": "key",
            "retrain_token": RETRAIN_TOKEN,
        }
        (folder / "config" / "secrets").mkdir()
        for name, text in secrets.items():
            (folder / "config" / "secrets" / name).write_text(text)
        config["route"].update(TIMES)
        for route in config["route"]["routes"]:
            route.update(TIMES)
            if route["receiver"] == "retraining":
                route["repeat_interval"] = f"{wakes_s}s"
        for receiver in config["receivers"]:
            for pagerduty in receiver.get("pagerduty_configs", ()):
                pagerduty["url"] = f"{here}/pagerduty"
            for webhook in receiver.get("webhook_configs", ()):
                webhook["url"] = wake
        (folder / "config" / "alertmanager.yml").write_text(yaml.safe_dump(config, sort_keys=False))

    def start(self) -> None:
        assert PROGRAM is not None
        self._process = subprocess.Popen(
            [
                PROGRAM,
                f"--config.file={self.folder / 'config' / 'alertmanager.yml'}",
                f"--storage.path={self.folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--cluster.listen-address=",
                "--log.level=debug",
            ],
            stdout=(self.folder / "log").open("ab"),
            stderr=subprocess.STDOUT,
        )
        ready = f"http://127.0.0.1:{self.port}/-/ready"
        within(
            20, lambda: httpx.get(ready, trust_env=False).status_code == 200,
            lambda: (self.folder / "log").read_text()[-2000:], httpx.HTTPError,
        )  # fmt: skip

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def restart(self, away_s: float = 0.0) -> None:
        self.stop()
        time.sleep(away_s)
        self.start()

    def firing(self) -> list[str]:
        """The names of the alerts that it has, those that are suppressed included."""
        answer = httpx.get(f"http://127.0.0.1:{self.port}/api/v2/alerts", trust_env=False).json()
        return sorted(alert["labels"]["alertname"] for alert in answer)


@contextmanager
def alertmanager(folder: Path, receivers: Receivers, wake: str) -> Iterator[Alertmanager]:
    folder.mkdir(parents=True, exist_ok=True)
    made = Alertmanager(folder, receivers, wake)
    made.start()
    try:
        yield made
    finally:
        made.stop()
