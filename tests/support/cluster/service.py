"""One InferenceService in a namespace of its own: applied, deployed to, asked, controlled, and removed."""

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any, Protocol
from uuid import uuid4

import httpx
import yaml

from support.cluster import certificate
from support.cluster.addresses import Addresses
from support.cluster.controllers import DEPLOYMENT, Controller, controller
from support.cluster.inventory import done, found, kubectl
from support.cluster.models import CUSTOMERS, MASK_KEY, NOW, REPOSITORY, Commands
from support.cluster.namespaces import make_storage_secret, remove_namespace
from support.cluster.own_overlay import SMALL, Size, images, offset_s, patches


class Service:
    """`mode`: the overlay of kserve/."""

    def __init__(
        self, folder: Path, to: Addresses, namespace: str, mode: str, size: Size | None = None
    ) -> None:
        self.folder, self.to, self.namespace, self.mode = folder, to, namespace, mode
        self.size = size or SMALL[mode]
        self.churn = Commands(folder, to, namespace, mode)
        to.administer(f"CREATE DATABASE {self.churn.rollouts}")
        self._applied = False
        self.churn.prepare()
        self.first = self.churn.package(seed=1)
        # once: another value would start new pods at the next apply
        self._clock_offset_s = offset_s(NOW)
        self._overlay(to.image)

    def _overlay(self, image: str) -> None:
        """A company's own overlay."""
        own = self.folder / "own"
        flags = ("--set", f"training.model_name={self.namespace}")
        content = {
            "resources": [os.path.relpath(REPOSITORY / "kserve" / "overlays" / self.mode, own)],
            "namespace": self.namespace,
            "images": images(self.to, image),
            "patches": patches(self.to, self._clock_offset_s, self.size, flags),
        }
        own.mkdir(exist_ok=True)
        (own / "kustomization.yaml").write_text(yaml.safe_dump(content))

    def apply(self) -> int:
        """As a pipeline does it at each merge. Returns the exit code."""
        applied = kubectl("apply", "--server-side", "-k", str(self.folder / "own"))
        if applied.returncode:
            print(applied.stderr)
        elif not self._applied:
            done("scale", DEPLOYMENT, "-n", self.namespace, "--replicas=0")
            self._applied = True
        return applied.returncode

    @contextmanager
    def another_image(self, tag: str) -> Iterator[None]:
        """Applied meanwhile."""
        self._overlay(f"{self.to.image.rpartition(':')[0]}:{tag}")
        assert self.apply() == 0
        try:
            yield
        finally:
            self._overlay(self.to.image)
            assert self.apply() == 0

    def make_secrets(self) -> None:
        done("create", "namespace", self.namespace)
        make_storage_secret(self.namespace, self.to)
        self._secret("churn-features", online=self.to.redis, registry=self.to.database("feast"))
        self._secret("churn-mask-key", key=MASK_KEY)
        database = self.to.database(self.churn.rollouts)
        self._secret("churn-rollout", **{"database": database, "tracking-uri": self.to.mlflow or "unused"})
        trusted = self.folder / "var" / "trusted-signers"
        self._create("configmap", "churn-trusted-signers", f"--from-file={trusted}")
        certificate.make(self.to.certificate, self.namespace)

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

    @property
    def share(self) -> int:
        """Percent of the requests that the canary gets by the InferenceService; 0 without a canary."""
        spec = self._spec()
        if self.mode == "knative":
            return int(spec["predictor"].get("canaryTrafficPercent", 0))
        return sum(int(entry.get("trafficPercent", 0)) for entry in spec.get("canary", []))

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

    def ready_pods_of_canary(self) -> list[str]:
        """Of the newest rollout."""
        if self.mode == "knative":
            status = found("inferenceservice", "churn", "-n", self.namespace)["status"]
            begins = status["components"]["predictor"]["latestCreatedRevision"]
        else:
            begins = f"churn-v{self.status()['version']}"
        return [name for name in self.ready_pods() if name.startswith(begins)]

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

    def controller(self, *given: str) -> AbstractContextManager[Controller]:
        """`given`: settings that are not of a rollout's plan."""
        return controller(self.churn, given)

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
        self.to.administer(f"DROP DATABASE IF EXISTS {self.churn.rollouts} WITH (FORCE)")
        remove_namespace(self.namespace)


@dataclass(frozen=True)
class Sent:
    """A request: when, by a monotonic clock, what it took, and what went wrong."""

    at: float
    seconds: float
    trouble: str


class Asked(Protocol):
    """What is asked about customers."""

    @property
    def to(self) -> Addresses: ...
    @property
    def host(self) -> str: ...


class Requests:
    """Steady requests of customers through the gateway, counted by the model that answered.

    They are sent at their times, whether those before them are answered or not, by THREADS at the most.
    """

    THREADS = 8

    def __init__(self, service: Asked, per_second: float = 20) -> None:
        self._service, self._every_s = service, self.THREADS / per_second
        self.answers: Counter[str] = Counter()
        self.lost: list[str] = []  # what went wrong, and when: to be read beside the cluster's events
        self.sent: list[Sent] = []
        self._over = Event()
        self._threads = [Thread(target=self._run, args=(first,)) for first in range(self.THREADS)]

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
            due = time.monotonic() + customer * self._every_s / self.THREADS
            while not self._over.wait(max(0.0, due - time.monotonic())):
                due = max(due + self._every_s, time.monotonic() - 1)
                customer = customer % CUSTOMERS + 1
                began = time.monotonic()
                try:
                    answer = client.post(url, json={"instances": [{"user_id": customer}]})
                    trouble = "" if answer.status_code == 200 else f"{answer.status_code} {answer.text[:80]}"
                except httpx.HTTPError as error:
                    trouble = type(error).__name__
                self.sent.append(Sent(began, time.monotonic() - began, trouble))
                if trouble:
                    self.lost.append(f"{trouble} at {datetime.now(UTC):%H:%M:%S}")
                    continue
                self.answers[str(answer.json()["predictions"][0].get("model_version"))] += 1


@contextmanager
def applied_again(service: Service, every_s: float = 10) -> Iterator[None]:
    """What a self-heal loop does: the same apply again and again, each of which has to end with 0."""
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
        yield
    finally:
        over.set()
        thread.join()
    assert set(codes) == {0}, codes


@contextmanager
def service_in(folder: Path, to: Addresses, mode: str, size: Size | None = None) -> Iterator[Service]:
    """In a namespace of its own, with its secrets and nothing else yet. It leaves nothing behind."""
    made = Service(folder, to, f"churn-test-{uuid4().hex[:6]}", mode, size)
    try:
        made.make_secrets()
        yield made
    finally:
        made.remove()
