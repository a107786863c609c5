"""`churn rollout run` of a service: as the Deployment of the overlay, or on this machine with the rights of
its account.
"""

import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import yaml

from support.cluster.inventory import done, found, kubectl
from support.cluster.models import Commands
from support.waits import within

BEGUN = re.compile(" rollout: (?!target: )")
"""In the log when it is past its first look at target and registry, or carries out a rollout. A command that
comes sooner ends with "no controller runs"."""
DEPLOYMENT = "deployment/churn-rollout"


class Controller(Protocol):
    def killed(self) -> None:
        """By force, as a machine that fails; another one takes over."""


class Here:
    """A process with the token of the account and no other right."""

    def __init__(self, churn: Commands, given: Sequence[str]) -> None:
        self._churn, self._given, self._log = churn, given, churn.folder / "controller.log"
        self._account = churn.folder / "account.kubeconfig"
        token = done("create", "token", "churn-rollout", "-n", churn.namespace, "--duration=2h").strip()
        config = yaml.safe_load(done("config", "view", "--minify", "--raw", "--flatten"))
        config["users"][0]["user"] = {"token": token}
        self._account.write_text(yaml.safe_dump(config))
        self._start()

    def _start(self) -> None:
        begins = len(self._log.read_text()) if self._log.exists() else 0
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._churn.line("rollout", "run", given=self._given),
                env={**self._churn.environment, "KUBECONFIG": str(self._account)},
                cwd=self._churn.folder,
                stdout=output,
                stderr=output,
            )
        try:
            within(120, lambda: BEGUN.search(self._log.read_text()[begins:]) is not None)
        except AssertionError:
            self.stop()
            raise

    def killed(self) -> None:
        self._process.kill()
        self._process.wait(10)
        self._start()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)


class InPod:
    """The Deployment, which has no pod while no controller is wanted."""

    def __init__(self, churn: Commands) -> None:
        self._namespace = churn.namespace
        done("scale", DEPLOYMENT, "-n", self._namespace, "--replicas=1")
        self._wait("")

    def _wait(self, before: str) -> None:
        """Until a pod other than `before` carries out rollouts."""
        within(180, lambda: self._name() not in ("", before))
        within(180, lambda: BEGUN.search(self._logged()) is not None)

    def _logged(self) -> str:
        logs = kubectl("logs", self._name(), "-n", self._namespace)
        return logs.stdout + logs.stderr

    def _name(self) -> str:
        """Of its pod; empty where there is none."""
        label = "churn.rollout/part=controller"
        pods = found("pods", "-n", self._namespace, "-l", label)["items"]
        alive = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        return str(alive[0]["metadata"]["name"]) if alive else ""

    def killed(self) -> None:
        before = self._name()
        done("delete", "pod", before, "-n", self._namespace, "--grace-period=0", "--force")
        self._wait(before)

    def stop(self) -> None:
        done("scale", DEPLOYMENT, "-n", self._namespace, "--replicas=0")
        within(120, lambda: self._name() == "")


@contextmanager
def controller(churn: Commands, given: Sequence[str] = ()) -> Iterator[Controller]:
    """`given`: settings of a controller, which then runs on this machine."""
    made = InPod(churn) if churn.to.controller_image and not given else Here(churn, given)
    try:
        yield made
    finally:
        made.stop()
