"""One InferenceService in a namespace of its own: applied, deployed to, asked, controlled, and removed."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import yaml

from support.cluster.addresses import Addresses
from support.cluster.inventory import done, found, kubectl
from support.cluster.models import CUSTOMERS, MASK_KEY, NOW, REPOSITORY, Commands
from support.waits import within

REMOVED_WITHIN_S = 180
LEAST_MEMORY, MOST_PODS = "800Mi", 3
"""Small enough for a node of two cores."""


class Service:
    """`mode`: the overlay of kserve/."""

    def __init__(self, folder: Path, to: Addresses, namespace: str, mode: str) -> None:
        self.folder, self.to, self.namespace, self.mode = folder, to, namespace, mode
        self.churn = Commands(folder, to, namespace, mode)
        self.churn.prepare()
        self.first = self.churn.package(seed=1)
        self._overlay()

    def _overlay(self) -> None:
        """A company's own overlay: namespace, image, smaller pods, and the time that the shop's log ends."""
        offset = (datetime.fromisoformat(NOW) - datetime.now(UTC)).total_seconds()
        name, _, tag = self.to.image.rpartition(":")
        clock = {"name": "CHURN_CLOCK_OFFSET_S", "value": str(offset)}
        runtime = [
            {"op": "add", "path": "/spec/containers/0/env/-", "value": clock},
            {
                "op": "replace",
                "path": "/spec/containers/0/resources/requests",
                "value": {"cpu": "200m", "memory": "600Mi"},
            },
            {"op": "replace", "path": "/spec/containers/0/resources/limits/memory", "value": LEAST_MEMORY},
        ]
        # the controller runs on this machine, with the account's token: there may be no churn-train
        paused = [{"op": "replace", "path": "/spec/replicas", "value": 0}]
        fewer = [{"op": "replace", "path": "/spec/predictor/maxReplicas", "value": MOST_PODS}]
        content = {
            "resources": [
                os.path.relpath(REPOSITORY / "kserve" / "overlays" / self.mode, self.folder / "own")
            ],
            "namespace": self.namespace,
            "images": [{"name": "registry.example.com/churn-serve", "newName": name, "newTag": tag}],
            "patches": [
                {"target": {"kind": "ServingRuntime"}, "patch": yaml.safe_dump(runtime)},
                {"target": {"kind": "InferenceService"}, "patch": yaml.safe_dump(fewer)},
                {"target": {"kind": "Deployment", "name": "churn-rollout"}, "patch": yaml.safe_dump(paused)},
            ],
        }
        (self.folder / "own").mkdir(exist_ok=True)
        (self.folder / "own" / "kustomization.yaml").write_text(yaml.safe_dump(content))

    def apply(self) -> int:
        """As a pipeline does it at each merge. Returns the exit code."""
        applied = kubectl("apply", "--server-side", "-k", str(self.folder / "own"))
        if applied.returncode:
            print(applied.stderr)
        return applied.returncode

    def make_secrets(self) -> None:
        done("create", "namespace", self.namespace)
        aws, files = self.to.aws, self.folder / "var"
        host = aws["AWS_ENDPOINT_URL"].partition("://")
        self._secret("churn-features", online=self.to.redis, registry=f"{self.to.postgres}/feast")
        self._secret("churn-mask-key", key=MASK_KEY)
        self._secret("churn-rollout", **{"database": "unused", "tracking-uri": "unused"})
        keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        self._secret("churn-storage", **{key: aws[key] for key in keys})
        done(
            "annotate", "secret", "churn-storage", "-n", self.namespace,
            f"serving.kserve.io/s3-endpoint={host[2]}", "serving.kserve.io/s3-region=us-east-1",
            f"serving.kserve.io/s3-usehttps={int(host[0] == 'https')}",
        )  # fmt: skip
        self._create("configmap", "churn-trusted-signers", f"--from-file={files / 'trusted-signers'}")

    def _secret(self, name: str, **values: str) -> None:
        lines = "".join(f"{key}={value}\n" for key, value in values.items())
        self._create("secret", "generic", name, "--from-env-file=/dev/stdin", body=lines)

    def _create(self, *words: str, body: str | None = None) -> None:
        done("create", *words, "-n", self.namespace, body=body)

    @property
    def served(self) -> str:
        """The storageUri of what is stable."""
        return str(self._spec()["predictor"]["model"].get("storageUri"))

    def _spec(self) -> Any:
        return found("inferenceservice", "churn", "-n", self.namespace)["spec"]

    def pods(self) -> list[Any]:
        return list(found("pods", "-n", self.namespace)["items"])

    def ready_pods(self) -> list[str]:
        """Names of the pods that answer."""
        return [
            pod["metadata"]["name"]
            for pod in self.pods()
            if "deletionTimestamp" not in pod["metadata"]
            and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])
        ]

    @property
    def host(self) -> str:
        return str(found("inferenceservice", "churn", "-n", self.namespace)["status"]["url"]).partition(
            "://"
        )[2]

    def ask(self, customers: int = CUSTOMERS) -> list[Any]:
        body = {"instances": [{"user_id": user} for user in range(1, customers + 1)]}
        answer = httpx.post(
            f"{self.to.gateway}/v1/models/churn:predict", json=body, headers={"Host": self.host}, timeout=10
        )
        assert answer.status_code == 200, answer.text
        return list(answer.json()["predictions"])

    @contextmanager
    def controller(self) -> "Iterator[subprocess.Popen[bytes]]":
        """`churn rollout run` with the rights of ServiceAccount churn-rollout and no others."""
        token = done("create", "token", "churn-rollout", "-n", self.namespace, "--duration=2h").strip()
        config = yaml.safe_load(done("config", "view", "--minify", "--raw", "--flatten"))
        config["users"][0]["user"] = {"token": token}
        account = self.folder / "account.kubeconfig"
        account.write_text(yaml.safe_dump(config))
        log = self.folder / "controller.log"
        begins = len(log.read_text()) if log.exists() else 0
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.churn.line("rollout", "run"),
                env={**self.churn.environment, "KUBECONFIG": str(account)},
                cwd=self.folder,
                stdout=output,
                stderr=output,
            )
        try:
            # else a command that comes sooner ends with "no controller runs"
            within(120, lambda: " rollout: " in log.read_text()[begins:])
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(60)

    def status(self) -> Any:
        ran = subprocess.run(
            self.churn.line("rollout", "status", "--json"),
            capture_output=True,
            text=True,
            env=self.churn.environment,
            cwd=self.folder,
            check=False,
        )
        return json.loads(ran.stdout)

    def ended(self, within_s: float = 400) -> Any:
        """The status of the newest rollout when it has ended."""
        deadline = time.monotonic() + within_s
        while True:
            status = self.status()
            if status["phase"] in ("promoted", "rolled_back", "aborted"):
                return status
            assert time.monotonic() < deadline, status
            time.sleep(2)

    def remove(self) -> None:
        done("delete", "namespace", self.namespace, "--wait=false")
        deadline = time.monotonic() + REMOVED_WITHIN_S
        while found("namespace", self.namespace) is not None:
            assert time.monotonic() < deadline, f"namespace {self.namespace} is still there"
            time.sleep(2)


@dataclass(frozen=True)
class Sent:
    """A request: when, by a monotonic clock, what it took, and what went wrong."""

    at: float
    seconds: float
    trouble: str


class Requests:
    """Steady requests of customers through the gateway, counted by the model that answered."""

    def __init__(self, service: Service, per_second: float = 20) -> None:
        self._service, self._pause = service, 1 / per_second
        self.answers: Counter[str] = Counter()
        self.lost: list[str] = []
        self.sent: list[Sent] = []
        self._over = Event()
        self._threads = [Thread(target=self._run, args=(first,)) for first in range(4)]

    @property
    def summary(self) -> str:
        """For people, in the output of a run."""
        answered, slowest_s = sum(self.answers.values()), max(one.seconds for one in self.sent)
        return f"{answered} answered, {len(self.lost)} lost, the slowest after {slowest_s:.1f} s"

    def __enter__(self) -> "Requests":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, customer: int) -> None:
        url = f"{self._service.to.gateway}/v1/models/churn:predict"
        with httpx.Client(headers={"Host": self._service.host}, timeout=30) as client:
            while not self._over.wait(self._pause * len(self._threads)):
                customer = customer % CUSTOMERS + 1
                began = time.monotonic()
                try:
                    answer = client.post(url, json={"instances": [{"user_id": customer}]})
                    trouble = "" if answer.status_code == 200 else f"{answer.status_code} {answer.text[:80]}"
                except httpx.HTTPError as error:
                    trouble = type(error).__name__
                self.sent.append(Sent(began, time.monotonic() - began, trouble))
                if trouble:
                    self.lost.append(trouble)
                    continue
                self.answers[str(answer.json()["predictions"][0].get("model_version"))] += 1


@contextmanager
def applied_again(service: Service, every_s: float = 10) -> Iterator[list[int]]:
    """What a self-heal loop does: the same apply again and again. The exit codes."""
    codes: list[int] = []
    over = Event()

    def run() -> None:
        while True:
            codes.append(service.apply())
            if over.wait(every_s):
                return

    thread = Thread(target=run)
    thread.start()
    try:
        yield codes
    finally:
        over.set()
        thread.join()
