"""docs/kubernetes.md is followed: its commands as they stand there, with the production profile, from an
empty namespace to a promoted canary. Counted and timed.

`churn` gets one file of settings more, with small models and a short plan; addresses that stand for those of
a company are replaced (EXAMPLES).
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from support.cluster import certificate
from support.cluster.addresses import Addresses
from support.cluster.inventory import Inventory, found
from support.cluster.namespaces import remove_namespace
from support.cluster.own_overlay import SMALL, images, offset_s, patches
from support.cluster.service import Requests
from support.documents import Block, blocks
from support.servers.loopback import END, REPOSITORY
from support.waits import within

NAMESPACE = "churn"
"""As on the page."""
PER_SECOND = 30
STAGES = [{"weight": weight, "min_s": 5, "max_s": 300, "min_requests": 50} for weight in (10, 50, 100)]
SETTINGS = {
    "tuning": {"trials": 1},
    "model": {"seeds": [0], "trees": False},
    "training": {"epochs": 1, "baselines": ["base_rate", "logistic_regression"], "cross_validation": 1},
    "rollout": {
        "stages": STAGES,
        "watch_s": 30,
        "ready_timeout_s": 240,
        # models of one epoch and of two seeds are not alike
        "rules": {"score_shift": None, "decision_rate": None, "latency": None},
    },
}


@dataclass
class Page:
    """The page's blocks in order, and a shell that has what the blocks before have exported."""

    folder: Path
    to: Addresses
    mode: str

    def __post_init__(self) -> None:
        self.settings = self.folder / "small.yaml"
        self.settings.write_text(yaml.safe_dump(SETTINGS))
        shutil.copytree(REPOSITORY / "kserve", self.folder / "kserve")
        self.ran: list[tuple[str, float]] = []
        self.exports: list[str] = []
        programs = self.folder / "bin"
        programs.mkdir()
        churn = f'#!/bin/sh\nexec "{sys.executable}" -m churn "$@" --config "{self.settings}"\n'
        (programs / "churn").write_text(churn)
        (programs / "churn").chmod(0o755)
        self.environment = {
            **os.environ,
            **self.to.variables,
            "CHURN_PROMETHEUS": self.to.prometheus,
            "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}",
            "PATH": f"{programs}:{os.environ['PATH']}",
        }

    @property
    def host(self) -> str:
        url = found("inferenceservice", "churn", "-n", NAMESPACE)["status"]["url"]
        return str(url).partition("://")[2]

    def examples(self) -> dict[str, str]:
        """What stands for a company's own on the page."""
        s3 = urlsplit(self.to.s3)
        return {
            "CHURN_ROLLOUT_TARGET=standard": f"CHURN_ROLLOUT_TARGET={self.mode}",
            "s3://models/churn": f"{self.to.store}/page",
            "s3.shop.example:9000": f"{s3.hostname}:{s3.port}",
            "s3-usehttps=1": "s3-usehttps=0",
        }

    def write_overlay(self, block: Block) -> None:
        content = yaml.safe_load(block.text.replace("overlays/standard", f"overlays/{self.mode}"))
        content["components"] = []  # of the Prometheus operator and a network plugin
        content["images"] = images(self.to, self.to.image)
        content["patches"] = patches(self.to, offset_s(f"{END}T00:00:00+00:00"), SMALL[self.mode])
        to = self.folder / "overlays" / "shop" / "kustomization.yaml"
        to.parent.mkdir(parents=True)
        to.write_text(yaml.safe_dump(content))

    def run(self, text: str) -> None:
        """The commands of a block; each is counted and timed."""
        for example, ours in self.examples().items():
            text = text.replace(example, ours)
        for command in commands(text):
            if command.startswith("export "):
                self.exports.append(command)
                continue
            began = time.monotonic()
            ended = subprocess.run(
                ["bash", "-ec", "\n".join([*self.exports, command])],
                cwd=self.folder, env=self.environment, capture_output=True, text=True,
                timeout=1200, check=False,
            )  # fmt: skip
            assert ended.returncode == 0, f"{command}: {ended.returncode}: {ended.stdout}{ended.stderr}"
            self.ran.append((command.splitlines()[0], time.monotonic() - began))

    def table(self) -> str:
        lines = [f"{seconds:6.1f} s  {command[:100]}" for command, seconds in self.ran]
        return "\n".join([*lines, f"{len(self.ran)} commands, {sum(s for _, s in self.ran):.0f} s"])


def commands(text: str) -> list[str]:
    """A command a line; what follows `<<END` belongs to it."""
    return re.findall(r"^.+<<END\n(?:.*\n)*?END$|^.+$", text, re.MULTILINE)


@pytest.fixture(params=["standard", "knative"])
def page(
    request: pytest.FixtureRequest, cluster: Inventory, evidence: None, stores: Addresses, tmp_path: Path
) -> Iterator[Page]:
    cluster.needs(request.param)
    if not stores.variables or not stores.controller_image:
        pytest.skip("cluster: CHURN_CLUSTER_HERE and CHURN_CLUSTER_TRAIN_IMAGE not set")
    if found("namespace", NAMESPACE) is not None:
        pytest.skip(f"cluster: there is a namespace {NAMESPACE}, which the page makes")
    with ExitStack() as stack:
        stack.callback(removed)
        yield Page(tmp_path, stores, request.param)


def removed() -> None:
    if found("namespace", NAMESPACE) is not None:
        remove_namespace(NAMESPACE)


def test_the_page_leads_to_a_promoted_canary_and_back(page: Page) -> None:
    titled = {block.where.partition(": ")[2]: block for block in blocks(REPOSITORY / "docs/kubernetes.md")}

    def block(begin: str) -> Block:
        return next(found for where, found in titled.items() if where.startswith(begin))

    page.run("churn ingest --profile production")  # of the workspace that the page begins with
    page.run(block("export CHURN_ROLLOUT_TARGET").text)
    page.write_overlay(block("# overlays/shop"))
    page.run(block("kubectl create namespace").text)
    certificate.make(page.to.certificate, NAMESPACE)
    page.run(block("kubectl apply").text)
    within(120, lambda: page.host != "")
    with Requests(page, PER_SECOND) as requests:
        page.run(block("churn train --profile production --set training.seed").text)
        page.run('churn rollback --profile production --reason "calls rose"')
    print(page.table())
    print(requests.summary)
    assert requests.lost == []
    assert len(requests.answers.keys() - {"None"}) == 2, "both models answered about customers who are known"
