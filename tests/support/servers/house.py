"""A served model with real processes to do harm to: TorchServe, gateway, supervisor, restless clients."""

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow.dataset as ds

from serving.config import GatewayConfig, ServingConfig
from serving.gateway.keys import Keys
from serving.gateway.process import Gateway
from serving.record import record_file
from serving.supervisor import Servers, Supervisor
from serving.torchserve.server import TorchServe
from support.served_bundle import FRESH, files_of

TICK_S = 0.1


@dataclass(frozen=True)
class Asked:
    """One request and what became of it. `status` 0: no answer at all."""

    at: float
    request_id: str
    status: int
    retry_after: str | None
    body: Any


@dataclass
class Clients:
    """Threads that ask for one customer after the other, and remember every answer."""

    url: str
    number: int = 4
    answers: list[Asked] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Clients":
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(self.number)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def statuses(self) -> set[int]:
        return {one.status for one in self.answers}

    def _ask(self, first: int) -> None:
        with httpx.Client(base_url=self.url, timeout=40, trust_env=False) as client:
            for number in itertools.count(first, self.number):
                if self._stop.is_set():
                    return
                self.answers.append(ask(client, FRESH[number % len(FRESH)], f"{first}-{number}"))
                time.sleep(0.002)


def ask(client: httpx.Client, user_id: int, request_id: str = "") -> Asked:
    headers = {"x-request-id": request_id} if request_id else {}
    try:
        answer = client.post("/predictions/churn", json={"user_id": user_id}, headers=headers)
    except httpx.TransportError:
        return Asked(time.monotonic(), request_id, 0, None, None)
    retry_after = answer.headers.get("retry-after")
    with contextlib.suppress(ValueError):
        return Asked(time.monotonic(), request_id, answer.status_code, retry_after, answer.json())
    return Asked(time.monotonic(), request_id, answer.status_code, retry_after, answer.text)


@dataclass(frozen=True)
class House:
    supervisor: Supervisor
    log: Path

    @property
    def url(self) -> str:
        return self.supervisor.gateway.url

    @property
    def jvm(self) -> int:
        return self.supervisor.model.pid

    def worker(self) -> psutil.Process:
        """The one process that runs the handler."""
        return max(psutil.Process(self.jvm).children(recursive=True), key=lambda p: p.memory_info().rss)

    def one(self, user_id: int = 1) -> Asked:
        with httpx.Client(base_url=self.url, timeout=40, trust_env=False) as client:
            return ask(client, user_id)

    def wait_for(self, status: int, within_s: float, user_id: int = 1) -> float:
        """Seconds until a request was answered so. Fails the test when that takes longer."""
        begun = time.monotonic()
        answer = self.one(user_id)
        while answer.status != status:
            assert time.monotonic() - begun < within_s, f"after {within_s:g} s still {answer}"
            time.sleep(0.05)
            answer = self.one(user_id)
        return time.monotonic() - begun

    def said(self) -> str:
        """What the present TorchServe and its workers wrote to their logs."""
        return "".join(f.read_text() for f in sorted(self.supervisor.model.log_folder.glob("*.log")))

    def counted(self, name: str, **labels: str) -> float:
        """A counter or gauge of the handler, over all its workers."""
        text = httpx.get(f"{self.supervisor.model.metrics}/metrics", trust_env=False).text
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in text.splitlines()
            if line.startswith(name) and all(label in line for label in wanted)
        )


@contextmanager
def house(
    archive: Path,
    environment: Mapping[str, str],
    folder: Path,
    newest: Callable[[], Path] | None = None,
    **more: str,
) -> Iterator[House]:
    """All that `churn serve` runs, looked after as it does, until the block ends in an orderly stop."""
    files, log = files_of(folder), folder / "prediction-log"
    serving, config = ServingConfig(), GatewayConfig(keys=False, drain_timeout_s=20)
    variables = {**environment, "CHURN_PREDICTION_LOG": str(log), **more}
    servers = Servers(
        newest or (lambda: archive),
        lambda archive, name: TorchServe(serving, archive, variables, files, name),
    )
    gateway = Gateway(config, serving, files, record_file(files))
    supervisor = Supervisor(gateway, servers, Keys(folder / "keys.json"), files)
    stop = threading.Event()

    def look_after() -> None:
        while not stop.wait(TICK_S):
            supervisor.tick(datetime.now(UTC))

    with supervisor:
        thread = threading.Thread(target=look_after)
        thread.start()
        try:
            yield House(supervisor, log)
        finally:
            stop.set()
            thread.join()


def logged(log: Path) -> list[str]:
    """The request ids that the prediction log holds."""
    files = sorted(log.glob("*/*.parquet"))
    ids: list[str] = (
        ds.dataset(files).to_table(columns=["request_id"])["request_id"].to_pylist() if files else []
    )
    return ids


def acknowledged(answers: Sequence[Asked]) -> dict[str, float]:
    """Request id -> when its score was told."""
    return {one.request_id: one.at for one in answers if one.status == 200}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
