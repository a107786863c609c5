"""The stack of deploy/compose with podman-compose: its services start before their stores, a model is trained
on them, a customer is predicted, and the panels of the dashboard about serving have data.

With the image churn-train where it is built. Without it, the same commands run in the image of the stores
with this checkout and its environment mounted: with CUDA, the build of churn-train needs 35 GB of disk.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from deploy.lint.tool import BIN, ROOT
from support.waits import free_port

BASE = "python:3.11-slim-bookworm"
COMPOSE = ROOT / "deploy" / "compose"
AS_OF = "1998-07-01"  # CDNOW's last purchases: by today's clock, all of its features are stale
SMALL = [
    "tuning.trials=0",
    "model.seeds=[0]",
    "model.trees=false",
    "training.epochs=1",
    "training.baselines=[base_rate, logistic_regression]",
    "training.cross_validation=1",
]
STEPS = ("ingest", "features", "online-store", "training-set", "tune", "train", "gates", "package")
APPS = ("mlflow", "server", "exporter", "churn")
START_S = 600


class Stack:
    """The services, and the addresses that they are published at."""

    def __init__(self, folder: Path) -> None:
        self.gateway, self.prometheus = free_port(), free_port()
        self.files = [COMPOSE / "compose.yaml", _override(folder)]
        self.variables = folder / "env"
        self.variables.write_text(
            "POSTGRES_PASSWORD=postgres1\nREDIS_PASSWORD=redis1\n"
            f"GATEWAY_PORT={self.gateway}\nPROMETHEUS_PORT={self.prometheus}\nGRAFANA_PORT={free_port()}\n",
            encoding="utf-8",
        )
        self.name = f"churn-test-{os.getpid()}"

    def __call__(self, *arguments: str, check: bool = True) -> str:
        files = [part for file in self.files for part in ("--file", str(file))]
        done = subprocess.run(
            [BIN / "podman-compose", "-p", self.name, "--env-file", self.variables, *files, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )
        if check and done.returncode != 0:
            pytest.fail(f"podman-compose {arguments[0]}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout

    def churn(self, *command: str) -> str:
        """A command of the platform in a container of its own."""
        return self("--profile", "jobs", "run", "--rm", "-T", "churn", *command, "--profile", "compose")

    def until(self, what: str, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                if true():
                    return
            except httpx.HTTPError:
                pass
            time.sleep(1)
        logs = {
            name: self("logs", name, check=False)[-1500:]
            for name in ("server", "mlflow", "postgres", "redis")
        }
        pytest.fail(f"{what} within {START_S} s: {json.dumps(logs, indent=1)}")


def _override(folder: Path) -> Path:
    """The server's clock in CDNOW's time; and this checkout in place of an image that is not there."""
    services: dict[str, dict[str, object]] = {name: {} for name in APPS}
    if subprocess.run(["podman", "image", "exists", "churn-train"], check=False).returncode != 0:
        mounts = {ROOT, Path(sys.prefix), Path(sys.base_prefix)}
        for name in APPS:
            services[name] = {
                "image": "churn-stores",
                "user": "0:0",
                "entrypoint": [sys.executable, "-m", "mlflow" if name == "mlflow" else "churn"],
                "volumes": [f"{path}:{path}:ro" for path in sorted(mounts)],
                "environment": {
                    "PYTHONPATH": str(ROOT),
                    "HOME": "/tmp",  # noqa: S108
                    "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
                },
            }
    services["server"]["command"] = ["serve", "--profile", "compose", "--as-of", AS_OF]
    file = folder / "override.yaml"
    file.write_text(yaml.safe_dump({"services": services}), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if not (shutil.which("podman") and (BIN / "podman-compose").exists()):
        pytest.skip("podman or podman-compose is not here: apt-get install podman; make deploy-tools")
    if (
        subprocess.run(["podman", "run", "--rm", BASE, "true"], check=False, capture_output=True).returncode
        != 0
    ):
        pytest.skip(f"the base image {BASE} is not here, or containers cannot be run on this machine")
    flags = shlex.split(os.environ.get("CHURN_IMAGE_FLAGS", ""))
    build = ["podman", "build", "--format", "docker", *flags, "--tag", "churn-stores", "stores"]
    subprocess.run(build, cwd=COMPOSE, check=True, timeout=900)
    services = Stack(tmp_path_factory.mktemp("compose"))
    try:
        yield services
    finally:
        services("down", "--volumes", "--timeout", "10", check=False)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_stack_predicts_and_its_dashboard_has_data(stack: Stack) -> None:
    # the services first, their stores half a minute later
    stack("up", "--detach", "network", "mlflow", "server", "exporter", "prometheus", "alertmanager")
    time.sleep(30)
    stack("up", "--detach", "postgres", "redis")

    overrides = [part for override in SMALL for part in ("--set", override)]
    for step in STEPS:
        stack.churn("steps", "run", step, *overrides)
    key = stack.churn("keys", "add", "test").split()[-1]
    gateway = httpx.Client(base_url=f"http://127.0.0.1:{stack.gateway}", headers={"x-api-key": key})
    stack.until("the server is ready", lambda: gateway.get("/readyz").status_code == 200)

    answers = [gateway.post("/predictions/churn", json={"user_id": user}) for user in range(1, 200)]
    assert {answer.status_code for answer in answers} == {200, 404}  # 404: who has not bought for long
    predictions = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(predictions) > 50
    assert all(0 <= prediction["churn_probability"] <= 1 for prediction in predictions)
    assert {prediction["prediction"] for prediction in predictions} == {"High Risk", "Low Risk"}

    def served() -> bool:
        """From the gateway and from the workers, which Prometheus finds through the exporter."""
        panels = panels_with_data(stack)
        return all(
            any(metric in panel for panel in panels) for metric in ("envoy_http_downstream", "churn_requests")
        )

    stack.until("the panels of requests have data", served)


def panels_with_data(stack: Stack) -> list[str]:
    """The queries of the dashboard about serving for which Prometheus has a value."""
    dashboard = json.loads(
        (ROOT / "monitoring/grafana/dashboards/churn-serving.json").read_text(encoding="utf-8")
    )
    queries = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", [])]
    address = f"http://127.0.0.1:{stack.prometheus}/api/v1/query"
    found = []
    for query in queries:
        text = query.replace("$__rate_interval", "2m").replace("$__range", "10m")
        answer = httpx.get(address, params={"query": text}).json()
        if answer.get("data", {}).get("result"):
            found.append(query)
    return found
