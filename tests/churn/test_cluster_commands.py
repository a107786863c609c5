"""`churn rollout ...` on a cluster, as processes, mostly without a controller."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from churn.settings import CONFIGS
from rollout.state import Change
from rollout.store import Store
from rollout.targets.kserve.standard import Standard
from support.file_target import controller, now, plan
from support.kube import standard
from support.kube.api_server import ApiServer
from support.kube.cluster import FIRST, SECOND, client, cluster, config


class Desk:
    """A workspace whose rollouts are on a cluster, and the commands that are run in it."""

    def __init__(self, folder: Path, server: ApiServer) -> None:
        self.folder, self.server = folder, server
        (folder / "var").mkdir()
        self.config = plan(lease_s=0.5, watch_s=0)
        self.store = Store(f"sqlite:///{folder}/var/rollout.db", 0.5)
        self.target = Standard(config(timeout_s=2), client(server))
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "current-context": "test",
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                    "clusters": [{"name": "test", "cluster": {"server": server.url}}],
                    "users": [{"name": "test", "user": {}}],
                }
            )
        )

    def on_trial(self) -> str:
        """A rollout that gives its canary 5 %, and whose controller has ended."""
        id = self.store.start("churn", Change(SECOND, FIRST, "ada", now(), "march"), self.config).id
        made = controller(self.folder, self.config, store=self.store, target=self.target)
        while self.target.observe().weight != 5:
            made.tick(id)
        self.store.release_lease("churn", made.holder, now())
        return id

    def command(self, *words: str) -> tuple[list[str], dict[str, str]]:
        settings = {
            "workspace": self.folder / "var",
            "rollout.target": "standard",
            "rollout.kserve.prometheus_url": "http://127.0.0.1:1",
            "rollout.kserve.timeout_s": 2,
            "rollout.ready_timeout_s": 5,
            "rollout.lease_s": 5,
        }
        flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        environment = os.environ | {"COLUMNS": "220", "LOGNAME": "bob", "KUBECONFIG": str(self.kubeconfig)}
        return [sys.executable, "-m", "churn", *words, *flags], environment

    def run(self, *words: str, code: int = 0) -> str:
        command, environment = self.command(*words)
        done = subprocess.run(
            command, cwd=CONFIGS.parent, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with cluster(standard.Standard()) as server:
        yield Desk(tmp_path, server)


def test_an_abort_without_a_controller_moves_the_traffic_back_itself(desk: Desk) -> None:
    id = desk.on_trial()
    assert "No controller runs" in desk.run("rollout", "pause", "--reason", "lunch", code=5)
    assert "answered by version aaaaaaaaaaaa" in desk.run("rollout", "abort", "--reason", "calls rose")
    done = desk.store.load(id)
    assert (done.phase, done.outcome) == ("aborted", "bob: calls rose")
    state = desk.target.observe()
    assert (state.canary, state.weight, state.stable) == (None, 0, FIRST.sha256)


def test_an_abort_that_cannot_be_executed_does_not_end_with_0(desk: Desk) -> None:
    id = desk.on_trial()
    desk.server.down = True
    assert "not done within 10 s" in desk.run("rollout", "abort", "--reason", "calls rose", code=1)
    assert desk.store.load(id).phase == "rolling_back"


def test_what_serves_is_recorded_or_replaced(desk: Desk) -> None:
    output = desk.run("rollout", "adopt", "--reason", "deployed before rollouts")
    assert "Version aaaaaaaaaaaa is recorded as stable" in output
    assert desk.store.stable("churn") == FIRST
    desk.target.deploy(SECOND)
    desk.target._cluster.wait(lambda: desk.target.observe().detail or None, 5, "ready")
    desk.target.promote(SECOND)  # by hand
    assert "serves version aaaaaaaaaaaa again" in desk.run("rollout", "restore")
    assert desk.target.observe().stable == FIRST.sha256


def test_the_controller_of_a_cluster_answers_probes_and_executes_requests(desk: Desk) -> None:
    id = desk.on_trial()
    command, environment = desk.command("rollout", "run", "--set", "rollout.health_address=127.0.0.1:0")
    with subprocess.Popen(
        command,
        cwd=CONFIGS.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        stop = threading.Timer(120, process.kill)
        stop.start()
        try:
            url = next(line.split()[-1] for line in process.stderr if "health and metrics at" in line)
            assert httpx.get(f"{url}/livez").status_code == 200
            assert "churn_rollout_running 1.0" in httpx.get(f"{url}/metrics").text
            assert "aborted" in desk.run("rollout", "abort", "--reason", "calls rose")
            assert desk.store.load(id).phase == "aborted"
        finally:
            process.terminate()
            process.communicate()
            stop.cancel()
        assert process.returncode == 0
