"""A served model whose processes a test kills, stops or starves, and clients that record every answer."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow.dataset as ds

from serving.config import GatewayConfig
from support.served_bundle import FRESH, ServedBundle
from support.servers.stack import Stack, supervisor_of, ticking
from support.waits import seconds_until


@dataclass(frozen=True)
class Answered:
    """One request and its answer. `status` 0: no answer at all."""

    at: float
    request_id: str
    status: int
    retry_after: str | None
    body: Any


@dataclass
class Clients:
    """Threads that request one customer after the other, and record every answer."""

    url: str
    number: int = 4
    answers: list[Answered] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Clients":
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(self.number)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def statuses(self) -> set[int]:
        return {one.status for one in self.answers}

    def _run(self, first: int) -> None:
        with httpx.Client(base_url=self.url, timeout=40, trust_env=False) as client:
            for number in itertools.count(first, self.number):
                if self._stop.is_set():
                    return
                self.answers.append(predict(client, FRESH[number % len(FRESH)], f"{first}-{number}"))
                time.sleep(0.002)


def predict(client: httpx.Client, user_id: int, request_id: str = "") -> Answered:
    headers = {"x-request-id": request_id} if request_id else {}
    try:
        answer = client.post("/predictions/churn", json={"user_id": user_id}, headers=headers)
    except httpx.TransportError:
        return Answered(time.monotonic(), request_id, 0, None, None)
    retry_after = answer.headers.get("retry-after")
    with contextlib.suppress(ValueError):
        return Answered(time.monotonic(), request_id, answer.status_code, retry_after, answer.json())
    return Answered(time.monotonic(), request_id, answer.status_code, retry_after, answer.text)


@dataclass
class ServerUnderFault(Stack):
    log: Path

    @property
    def jvm(self) -> int:
        return self.supervisor.model.pid

    def worker(self) -> psutil.Process:
        """The one process that runs the handler."""
        return max(psutil.Process(self.jvm).children(recursive=True), key=lambda p: p.memory_info().rss)

    def one(self, user_id: int = 1) -> Answered:
        with httpx.Client(base_url=self.url, timeout=40, trust_env=False) as client:
            return predict(client, user_id)

    def wait_for(self, status: int, within_s: float, user_id: int = 1) -> float:
        """Seconds until a request got this status; AssertionError after `within_s`."""
        answers: list[Answered] = []

        def is_answered() -> bool:
            answers.append(self.one(user_id))
            return answers[-1].status == status

        return seconds_until(is_answered, within_s, problem=lambda: answers[-1])

    def output(self) -> str:
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
def under_fault(
    bundle: ServedBundle, folder: Path, newest: Callable[[], Path] | None = None, **environment: str
) -> Iterator[ServerUnderFault]:
    """A server with its ticks and a prediction log, until the block ends in an orderly stop."""
    log = folder / "prediction-log"
    gateway = GatewayConfig(keys=False, drain_timeout_s=20)
    variables = {"CHURN_PREDICTION_LOG": str(log), **environment}
    made = supervisor_of(bundle, folder, gateway, environment=variables, newest=newest)
    with made.supervisor, ticking(made.supervisor):
        yield ServerUnderFault(**vars(made), log=log)


def logged(log: Path) -> list[str]:
    """The request ids that the prediction log holds."""
    files = sorted(log.glob("*/*.parquet"))
    ids: list[str] = (
        ds.dataset(files).to_table(columns=["request_id"])["request_id"].to_pylist() if files else []
    )
    return ids


def acknowledged(answers: Sequence[Answered]) -> dict[str, float]:
    """Request id -> when its score was received."""
    return {one.request_id: one.at for one in answers if one.status == 200}
