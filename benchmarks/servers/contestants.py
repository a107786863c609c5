"""Who takes part, and how each is started: ours in both profiles, the limit, and the rivals."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import httpx
import joblib
import pandas as pd
from sklearn.ensemble import RandomForestClassifier

from benchmarks.servers.load import Target
from benchmarks.servers.process import NotStarted, free_port, stopped, wait_for
from churn.settings import Settings
from data.workspace import Workspace
from handlers.encoding import encode
from pipelines.live import newest_archive, server
from serving.config import GatewayConfig
from serving.gateway import Gateway
from serving.keys import Keys
from serving.torchserve import TorchServe

ROOT = Path(__file__).resolve().parent.parent.parent
START_TIMEOUT_S = 180
V1 = '{"instances": [{"user_id": %s}]}'
NATIVE = '{"user_id": %s}'
NOOP = ROOT / "benchmarks" / "servers" / "noop_handler.py"


@dataclass(frozen=True)
class Ground:
    """What all servers stand on."""

    settings: Settings
    folder: Path
    """For logs and for what a rival needs on disk."""
    venv: Path
    """The environment of the rivals that we do not install."""
    ids: tuple[int | str, ...]
    """Customers that the store knows."""

    @property
    def ids_file(self) -> Path:
        return self.folder / "ids.txt"

    @property
    def model_dir(self) -> Path:
        return self.folder / "model"

    @property
    def forest(self) -> Path:
        return self.folder / "forest.joblib"


@dataclass(frozen=True)
class Running:
    pids: tuple[int, ...]
    target: Target


Start = Callable[[Ground], AbstractContextManager[Running]]


def lay(ground: Ground) -> None:
    """Unpack our archive for the rivals, and fit the forest of the usual recipe on the same training rows."""
    ground.ids_file.write_text("".join(f"{user_id}\n" for user_id in ground.ids), encoding="utf-8")
    with zipfile.ZipFile(newest_archive(ground.settings.files)) as archive:
        archive.extractall(ground.model_dir)
    rows = pd.read_parquet(ground.settings.files.training_set)
    bundle = json.loads((ground.model_dir / "bundle.json").read_text(encoding="utf-8"))
    numbers, _ = encode({name: rows[name] for name in bundle["numeric"]}, bundle["numeric"], {})
    forest = RandomForestClassifier(n_estimators=200, max_depth=12, random_state=0, n_jobs=1)
    # a forest's depth and not its fit is what a request costs: 20,000 rows are plenty
    forest.fit(numbers[:20_000], rows["churned"].to_numpy()[:20_000])
    joblib.dump(forest, ground.forest)


def ours(profile: str, **serving: Any) -> Start:
    """In a profile; `serving` are settings that differ from it."""

    @contextmanager
    def start(ground: Ground) -> Iterator[Running]:
        settings = with_profile(ground.settings, profile, **serving)
        files, now = Workspace(Path(mkdtemp(prefix=f"ours-{profile}-", dir=ground.folder))), datetime.now(UTC)
        with server(settings, files, now, clock_of(settings)) as running:
            yield Running((running.pid,), of_torchserve(running))

    return start


def through_the_gateway(profile: str) -> Start:
    """As `ours`, behind Envoy and with a key, which is how others reach it."""

    @contextmanager
    def start(ground: Ground) -> Iterator[Running]:
        settings = with_profile(ground.settings, profile)
        files, now = Workspace(ground.folder / f"gateway-{profile}"), datetime.now(UTC)
        keys = Keys(files.root / "keys.json")
        key = keys.add("benchmark", now)
        config = GatewayConfig(requests_per_s=1_000_000, burst=1_000_000)
        with (
            server(settings, files, now, clock_of(settings)) as behind,
            Gateway(config, settings.serving, files) as gateway,
        ):
            gateway.serve({}, keys.all())
            gateway.set_upstream("stable", behind.upstream)
            url = f"{gateway.url}/v1/models/{settings.serving.model_name}:predict"
            target = Target(url, V1, (f"Authorization: Bearer {key}",))
            yield Running((behind.pid, gateway.pid), target)

    return start


def noop(profile: str, **serving: Any) -> Start:
    @contextmanager
    def start(ground: Ground) -> Iterator[Running]:
        files = Workspace(Path(mkdtemp(prefix=f"noop-{profile}-", dir=ground.folder)))
        config = with_profile(ground.settings, profile, **serving).serving
        with TorchServe(config, noop_archive(files.model_store), {}, files) as running:
            yield Running((running.pid,), of_torchserve(running))

    return start


def rival(module: str, path: str, body: str, python: Callable[[Ground], str]) -> Start:
    """A server that is a module of ours and finds its port in the environment."""
    return command(lambda ground, port: [python(ground), "-m", f"benchmarks.servers.{module}"], path, body)


def command(argv: Callable[[Ground, int], list[str]], path: str, body: str) -> Start:
    @contextmanager
    def start(ground: Ground) -> Iterator[Running]:
        port = free_port()
        target = Target(f"http://127.0.0.1:{port}{path}", body)
        name = path.strip("/").replace("/", "-")
        with (ground.folder / f"{name}-{port}.log").open("wb") as log:
            process = subprocess.Popen(
                argv(ground, port),
                env=environment(ground, port),
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            with stopped(process):
                try:
                    wait_for(lambda: _answers(target, ground.ids[0]), process, START_TIMEOUT_S)
                except NotStarted as error:
                    said = Path(log.name).read_text(errors="replace").strip().splitlines() or ["nothing"]
                    raise NotStarted(f"{error}; it said: {said[-1][:200]}") from None
                yield Running((process.pid,), target)

    return start


def _litserve_python(ground: Ground) -> str:
    return _of(ground, "python")


def _bentoml(ground: Ground, port: int) -> list[str]:
    service = "benchmarks.servers.bentoml_adaptive:Churn"
    return [
        *(_of(ground, "bentoml"), "serve", service, "--host", "127.0.0.1", "--port", str(port)),
        *("--working-dir", str(ROOT), "--quiet"),
    ]


def _mlflow(ground: Ground, port: int) -> list[str]:
    model = ground.folder / "mlflow-model"
    if not model.exists():
        save = [sys.executable, "-m", "benchmarks.servers.mlflow_pyfunc", str(model)]
        done = subprocess.run(save, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotStarted(f"the model was not saved: {done.stderr.strip().splitlines()[-1][:200]}")
    mlflow = str(Path(sys.executable).with_name("mlflow"))
    return [
        *(mlflow, "models", "serve", "-m", str(model), "-h", "127.0.0.1", "-p", str(port)),
        *("--env-manager", "local", "-w", "1"),
    ]


def _here(ground: Ground) -> str:
    return sys.executable


def _of(ground: Ground, name: str) -> str:
    found = ground.venv / "bin" / name
    if not found.exists():
        raise NotStarted(f"not installed: {ground.venv} (make bench-serving makes it)")
    return str(found)


CONTESTANTS: Mapping[str, Start] = {
    "no-op, throughput": noop("throughput"),
    "ours, throughput": ours("throughput"),
    "no-op, latency": noop("latency"),
    "ours, latency": ours("latency"),
    "gateway, throughput": through_the_gateway("throughput"),
    "gateway, latency": through_the_gateway("latency"),
    "KServe ModelServer": rival("kserve_sdk", "/v1/models/churn:predict", V1, _here),
    "LitServe, batching": rival("litserve_batched", "/predict", NATIVE, _litserve_python),
    "BentoML, adaptive batching": command(_bentoml, "/predict", '{"user_ids": [%s]}'),
    "MLflow scoring server": command(_mlflow, "/invocations", '{"dataframe_records": [{"user_id": %s}]}'),
    "FastAPI + random forest": rival("fastapi_forest", "/predict", NATIVE, _here),
}


def with_profile(settings: Settings, profile: str, **serving: Any) -> Settings:
    """Workers for half of the cores where many ask at once, the other half is TorchServe's own; else one."""
    workers = max(1, (os.cpu_count() or 1) // 2) if profile == "throughput" else 1
    changes = {"profile": profile, "workers": workers} | serving
    return settings.model_copy(update={"serving": settings.serving.model_copy(update=changes)})


def clock_of(settings: Settings) -> datetime:
    """The moment at which the store's features are fresh: the log's end."""
    manifest = json.loads(settings.files.feature_manifest.read_text(encoding="utf-8"))
    return datetime.fromisoformat(manifest["latest"])


def of_torchserve(running: TorchServe) -> Target:
    token = f"Authorization: Bearer {running.tokens.inference}"
    return Target(f"{running.inference}/v1/models/churn:predict", V1, (token,))


def noop_archive(store: Path) -> Path:
    """A .mar with the handler that does nothing."""
    store.mkdir(parents=True, exist_ok=True)
    options = {"--model-name": "noop", "--version": "1.0", "--handler": NOOP, "--export-path": store}
    archiver = [sys.executable, "-m", "model_archiver.model_packaging", "--force"]
    parts = [str(part) for option in options.items() for part in option]
    subprocess.run(
        [*archiver, *parts], check=True, capture_output=True, env={**os.environ, "TMPDIR": str(store)}
    )
    return store / "noop.mar"


def environment(ground: Ground, port: int) -> dict[str, str]:
    """What a rival needs: the store's addresses, the key that masks, one thread, and no log a request."""
    from features.store import serving_environment

    settings = ground.settings
    quiet = {"UVICORN_ACCESS_LOG": "false", "UVICORN_LOG_LEVEL": "warning", "BENTOML_DO_NOT_TRACK": "True"}
    return {
        **os.environ,
        # `mlflow models serve` looks for uvicorn there
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        **serving_environment(settings.features, settings.files),
        "CHURN_MASK_KEY_FILE": str(settings.files.mask_key),
        "MODEL_DIR": str(ground.model_dir),
        "FOREST": str(ground.forest),
        "PORT": str(port),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        **quiet,
    }


def ask(target: Target, user_id: Any, timeout_s: float = 30) -> httpx.Response:
    """One request of a running server, as wrk would send it."""
    with client(target, timeout_s) as connection:
        return connection.post(target.url, content=target.body % user_id)


def client(target: Target, timeout_s: float = 30) -> httpx.Client:
    headers = {"Content-Type": "application/json"} | dict(h.split(": ", 1) for h in target.headers)
    return httpx.Client(headers=headers, timeout=timeout_s, trust_env=False)


def score_in(answer: Any) -> float:
    """The probability, wherever a server puts its answer."""
    if isinstance(answer, dict) and "predictions" in answer:
        answer = answer["predictions"]
    if isinstance(answer, list):
        answer = answer[0]
    return float(answer["churn_probability"])


def _answers(target: Target, user_id: int | str) -> bool:
    try:
        return ask(target, user_id, timeout_s=5).status_code == 200
    except httpx.TransportError:
        return False
