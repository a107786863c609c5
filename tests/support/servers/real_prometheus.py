"""Debian's Prometheus, and workers that it scrapes; skipped where the program is not installed."""

import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from handlers.telemetry import Telemetry, torchserve_metrics
from support.waits import free_port, within

PROGRAM = shutil.which("prometheus")
needs_prometheus = pytest.mark.skipif(
    PROGRAM is None, reason="there is no Prometheus here: apt-get install prometheus"
)
PAGE_NUMBER = "page_number"
USER = ("churn", "test")
"""Of a Prometheus with users; one without them ignores it."""
SERVICE = "serving_kserve_io_inferenceservice"
DIMENSIONS = {metric["name"]: metric["dimensions"] for metric in torchserve_metrics()["counter"]}


@dataclass
class Exporters:
    """Pages of metrics, one a pod, that a test changes: served by one HTTP server, a path each.

    Each page has a number of its own, so that a test can ask Prometheus which page it has stored.
    """

    pages: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    port: int = 0
    targets: Counter[str] = field(default_factory=Counter)
    """How many jobs scrape a pod."""
    url: str = ""
    """Of the Prometheus that scrapes them."""
    scrapes: Counter[str] = field(default_factory=Counter)
    """Requests for each page so far."""

    def worker(self, pod: str, worker: Telemetry) -> None:
        counters, _ = worker.snapshot()
        self.page(pod, {(name, *zip(DIMENSIONS[name], values, strict=True)): value
                        for (name, values), value in counters.items()})  # fmt: skip

    def page(self, pod: str, series: Mapping[tuple[Any, ...], float]) -> None:
        """(name, (label, value), ...) -> count.

        A sample has the time at which its scrape began. So that no sample of this page is from before this
        call, scrapes that are under way get the page before it.
        """
        if self.targets[pod]:
            enough = self.scrapes[pod] + 2 * self.targets[pod]
            within(60, lambda: self.scrapes[pod] >= enough, f"{pod} is not scraped")
        number = self.numbers.get(pod, 0) + 1
        lines = []
        for (name, *labels), value in [*series.items(), ((PAGE_NUMBER,), number)]:
            inside = ",".join(f'{label}="{text}"' for label, text in labels)
            lines.append(f"{name}{{{inside}}} {value:g}")
        self.pages[pod] = "\n".join(lines) + "\n"
        self.numbers[pod] = number

    def settle(self, *pods: str) -> None:
        """Wait until Prometheus has stored the present page of each pod, for each job that scrapes it. A
        count of the requests to this server would not show that: on a full machine scrapes time out."""
        with httpx.Client(verify=False, timeout=5, trust_env=False, auth=USER) as client:  # noqa: S501
            within(60, lambda: all(self._is_stored(client, pod) for pod in pods), "a page was not stored")

    def _is_stored(self, client: httpx.Client, pod: str) -> bool:
        query = f'count({PAGE_NUMBER}{{pod="{pod}"}} == {self.numbers[pod]})'
        found = client.get(f"{self.url}/api/v1/query", params={"query": query}).json()["data"]["result"]
        return bool(found) and int(found[0]["value"][1]) == self.targets[pod]


@contextmanager
def exporters() -> Iterator[Exporters]:
    made = Exporters()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            pod = self.path.rpartition("/")[2]
            body = made.pages.get(pod, "").encode()
            self.send_response(200 if pod in made.pages else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            made.scrapes[pod] += 1

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Job:
    """`pods`: pod -> its namespace and InferenceService."""

    name: str
    pods: Mapping[str, tuple[str, str]]
    honor_labels: bool = False
    """What a page says of its pod and namespace wins over the target's, as with a gateway's metrics."""


@contextmanager
def prometheus(
    folder: Path, exporters: Exporters, jobs: list[Job], web: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """It scrapes the exporters' pages, each as a pod of its job."""
    scrapes = [
        {
            "job_name": f"{job.name}-{pod}",
            "honor_labels": job.honor_labels,
            "metrics_path": f"/{pod}",
            "static_configs": [
                {
                    "targets": [f"127.0.0.1:{exporters.port}"],
                    "labels": {"job": job.name, "namespace": namespace, "pod": pod, SERVICE: service},
                }
            ],
        }
        for job in jobs
        for pod, (namespace, service) in job.pods.items()
    ]
    with running(folder, scrapes, web, every_ms=100) as url:
        exporters.url, exporters.targets = url, Counter(pod for job in jobs for pod in job.pods)
        yield url


@contextmanager
def running(
    folder: Path,
    scrapes: Sequence[Mapping[str, Any]],
    web: Mapping[str, Any] | None = None,
    every_ms: int = 400,
    more: Mapping[str, Any] | None = None,
    flags: Sequence[str] = (),
) -> Iterator[str]:
    """`web`: its own TLS and users (--web.config.file). `more`: further keys of its configuration, for
    example `rule_files`. Rules are evaluated as often as targets are scraped."""
    assert PROGRAM is not None
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "global": {
            "scrape_interval": f"{every_ms}ms",
            "scrape_timeout": f"{every_ms}ms",
            "evaluation_interval": f"{every_ms}ms",
        },
        "scrape_configs": list(scrapes),
        **(more or {}),
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "web.yml").write_text(yaml.safe_dump(dict(web or {})))
    port = free_port()
    scheme = "https" if web and "tls_server_config" in web else "http"
    process = subprocess.Popen(
        [
            PROGRAM,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--web.config.file={folder / 'web.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
            *flags,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_ready(f"{scheme}://127.0.0.1:{port}")
        yield f"{scheme}://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _wait_until_ready(url: str) -> None:
    with httpx.Client(verify=False, timeout=2, trust_env=False) as client:  # noqa: S501  its own certificate
        within(20, lambda: client.get(f"{url}/-/ready").status_code in (200, 401), ignored=httpx.HTTPError)
