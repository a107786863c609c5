"""What all servers of the comparison share: customers, store and model; and the request to a server."""

import json
import os
import ssl
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.servers.load import Target
from benchmarks.servers.process import NotStarted
from churn.settings import Settings
from pipelines.live import newest_archive

ROOT = Path(__file__).resolve().parent.parent.parent
CHECKED = 200
"""Customers whose scores are compared before a contestant is timed."""
AT_ONCE = 16
"""Of them, so that batches form and an answer that went to a neighbour is found."""
CLOSE = 1e-6


@dataclass(frozen=True)
class Ground:
    settings: Settings
    folder: Path
    """For logs and for files of a rival."""
    venv: Path
    """The virtual environment of the rivals."""
    ids: tuple[int | str, ...]
    """Customers in the store."""

    @property
    def ids_file(self) -> Path:
        return self.folder / "ids.txt"

    @property
    def model_dir(self) -> Path:
        return self.folder / "model"

    @property
    def checked(self) -> tuple[int | str, ...]:
        return self.ids[:: max(1, len(self.ids) // CHECKED)]


@dataclass(frozen=True)
class Running:
    pids: tuple[int, ...]
    target: Target


Start = Callable[[Ground], AbstractContextManager[Running]]


def lay(ground: Ground) -> None:
    """Write the customers for wrk, and unpack our archive for the rivals."""
    ground.ids_file.write_text("".join(f"{user_id}\n" for user_id in ground.ids), encoding="utf-8")
    with zipfile.ZipFile(newest_archive(ground.settings.files)) as archive:
        archive.extractall(ground.model_dir)


def clock_of(settings: Settings) -> datetime:
    """The moment at which the store's features are fresh: the log's end."""
    manifest = json.loads(settings.files.feature_manifest.read_text(encoding="utf-8"))
    return datetime.fromisoformat(manifest["latest"])


def environment(ground: Ground, port: int = 0) -> dict[str, str]:
    """What a rival needs: the store's addresses, the key that masks, one thread, and no log a request."""
    from features.store import serving_environment

    settings = ground.settings
    without_logs = {
        "UVICORN_ACCESS_LOG": "false",
        "UVICORN_LOG_LEVEL": "warning",
        "KSERVE_LOGLEVEL": "WARNING",
        "BENTOML_DO_NOT_TRACK": "True",
    }
    return {
        **os.environ,
        # `mlflow models serve` looks for uvicorn there
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        **serving_environment(settings.features, settings.files),
        "CHURN_MASK_KEY_FILE": str(settings.files.mask_key),
        "CHURN_CLOCK_OFFSET_S": str((clock_of(settings) - datetime.now(UTC)).total_seconds()),
        # Feast's read has no deadline either
        "CHURN_STORE_TIMEOUT_MS": "60000",
        "MODEL_DIR": str(ground.model_dir),
        "PORT": str(port),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        **without_logs,
    }


def reference(ground: Ground) -> list[float]:
    """The scores of `ground.checked` by Feast and the exported program, without any server."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.servers.recipe"],
        input=json.dumps(ground.checked),
        env=environment(ground),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotStarted(f"the reference was not scored: {_last_line(done.stderr)}")
    return [float(score) for score in json.loads(done.stdout.splitlines()[-1])]


def check(ground: Ground, target: Target, expected: Sequence[float]) -> None:
    """Compares the scores with the reference. Raises NotStarted for other scores."""
    with client(target) as connection, ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(
            pool.map(lambda one: connection.post(target.url, content=target.body % one), ground.checked)
        )
    statuses = sorted({answer.status_code for answer in answers})
    if statuses != [200]:
        raise NotStarted(f"its answers have the statuses {statuses}")
    scores = [score_in(answer.json()) for answer in answers]
    furthest = max(abs(a - b) for a, b in zip(scores, expected, strict=True))
    if furthest > CLOSE or len(set(expected)) < 2:
        raise NotStarted(f"its scores differ from the reference by up to {furthest:.2g}")


def send(target: Target, user_id: Any, timeout_s: float = 30) -> httpx.Response:
    """One request to a running server, as wrk sends it."""
    with client(target, timeout_s) as connection:
        return connection.post(target.url, content=target.body % user_id)


def answers(target: Target, user_id: int | str) -> bool:
    try:
        return send(target, user_id, timeout_s=5).status_code == 200
    except httpx.TransportError:
        return False


def client(target: Target, timeout_s: float = 30) -> httpx.Client:
    headers = {"Content-Type": "application/json"} | dict(h.split(": ", 1) for h in target.headers)
    verify = ssl.create_default_context(cafile=target.certificate) if target.certificate else True
    return httpx.Client(headers=headers, timeout=timeout_s, trust_env=False, verify=verify)


def score_in(answer: Any) -> float:
    """The probability, wherever a server puts its answer."""
    if isinstance(answer, dict) and "predictions" in answer:
        answer = answer["predictions"]
    if isinstance(answer, list):
        answer = answer[0]
    return float(answer["churn_probability"])


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing"])[-1][:200]
