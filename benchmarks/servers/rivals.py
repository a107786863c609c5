"""How each rival is started: as its documentation advises for two cores (the modules name the pages)."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.servers.ground import ROOT, Ground, Running, Start, answers, environment
from benchmarks.servers.load import Target
from benchmarks.servers.own import V1
from benchmarks.servers.process import NotStarted, free_port, stopped, wait_for

START_TIMEOUT_S = 300
NATIVE = '{"user_id": %s}'
READS = {"Feast's read": "feast", "our reader": "reader"}
WITHOUT_ACCESS_LOG = {
    "version": 1,
    "disable_existing_loggers": False,
    "root": {"level": "WARNING"},
    "loggers": {"uvicorn.access": {"level": "ERROR"}},
}
Command = Callable[[Ground, int], list[str]]
"""The arguments, of a ground and a port."""


def with_both_reads(name: str, command: Command, path: str, body: str, **given: str) -> dict[str, Start]:
    """The same server twice: features by Feast's own call, and by our reader. `given`: its environment."""
    return {
        f"{name}, {label}": started(command, path, body, {"READ": read, **given})
        for label, read in READS.items()
    }


def started(command: Command, path: str, body: str, given: Mapping[str, str]) -> Start:
    @contextmanager
    def start(ground: Ground) -> Iterator[Running]:
        port = free_port()
        target = Target(f"http://127.0.0.1:{port}{path}", body)
        name = path.strip("/").replace("/", "-").replace(":", "-")
        with (ground.folder / f"{name}-{port}.log").open("wb") as log:
            process = subprocess.Popen(
                command(ground, port),
                env=environment(ground, port) | given,
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            with stopped(process):
                try:
                    wait_for(lambda: answers(target, ground.ids[0]), process, START_TIMEOUT_S)
                except NotStarted as error:
                    lines = Path(log.name).read_text(errors="replace").strip().splitlines() or ["nothing"]
                    raise NotStarted(f"{error}; its last line: {lines[-1][:200]}") from None
                yield Running((process.pid,), target)

    return start


def _module(name: str, *arguments: str) -> list[str]:
    return ["-m", f"benchmarks.servers.{name}", *arguments]


def _kserve(ground: Ground, port: int) -> list[str]:
    config = ground.folder / "kserve-logging.json"
    config.write_text(json.dumps(WITHOUT_ACCESS_LOG), encoding="utf-8")
    return [
        *(sys.executable, *_module("kserve_sdk"), "--http_port", str(port), "--workers", "2"),
        *("--enable_grpc", "false", "--enable_latency_logging", "false", "--log_config_file", str(config)),
    ]


def _fastapi(ground: Ground, port: int) -> list[str]:
    return [sys.executable, *_module("fastapi_program")]


def _litserve(ground: Ground, port: int) -> list[str]:
    return [_of(ground, "python"), *_module("litserve_batched")]


def _bentoml(ground: Ground, port: int) -> list[str]:
    service = "benchmarks.servers.bentoml_adaptive:Churn"
    return [
        *(_of(ground, "bentoml"), "serve", service, "--host", "127.0.0.1", "--port", str(port)),
        *("--working-dir", str(ROOT), "--quiet"),
    ]


def _mlflow(ground: Ground, port: int) -> list[str]:
    model = ground.folder / "mlflow-model"
    if not model.exists():
        save = [sys.executable, *_module("mlflow_pyfunc", str(model))]
        done = subprocess.run(save, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotStarted(f"the model was not saved: {done.stderr.strip().splitlines()[-1][:200]}")
    mlflow = str(Path(sys.executable).with_name("mlflow"))
    return [
        *(mlflow, "models", "serve", "-m", str(model), "-h", "127.0.0.1", "-p", str(port)),
        *("--env-manager", "local", "-w", "2"),
    ]


def _of(ground: Ground, name: str) -> str:
    found = ground.venv / "bin" / name
    if not found.exists():
        raise NotStarted(f"not installed: {ground.venv} (make bench-serving makes it)")
    return str(found)


V1_PATH = "/v1/models/churn:predict"
RIVALS: Mapping[str, Mapping[str, Start]] = {
    "kserve": {
        **with_both_reads("KServe ModelServer", _kserve, V1_PATH, V1),
        **with_both_reads("KServe ModelServer with batcher", _kserve, V1_PATH, V1, BATCHER="1"),
    },
    "litserve": with_both_reads("LitServe", _litserve, "/predict", NATIVE),
    "bentoml": with_both_reads("BentoML", _bentoml, "/predict", '{"user_ids": [%s]}'),
    "mlflow": with_both_reads(
        "MLflow scoring server", _mlflow, "/invocations", '{"dataframe_records": [{"user_id": %s}]}'
    ),
    "fastapi": with_both_reads("FastAPI on uvicorn", _fastapi, "/predict", NATIVE),
}
"""Of each rival its settings, by name."""
