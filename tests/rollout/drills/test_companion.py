"""A rollout that another process writes to the database is carried out by the one that holds Envoy."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rollout.attendant import attend
from rollout.controller import Controller
from rollout.observers.live import LiveObserver
from rollout.observers.log_files import LogFiles
from rollout.rules import rules_of
from rollout.session import Clock, Connections
from rollout.state import Rollout
from rollout.store import Store
from rollout.targets.envoy import EnvoyTarget
from serving.supervisor import Supervisor
from support.served_bundle import NOW, ServedBundle

from support.drills.rig import Clients, Registered, altered, candidate_of, plan, running_rig, utc_now  # isort: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
START = """
import sys
from datetime import UTC, datetime
from rollout.config import RolloutConfig
from rollout.state import Change
from rollout.store import Store
from rollout.targets.target import Candidate
uri, archive, sha256, stable, stable_sha256, config = sys.argv[1:]
config = RolloutConfig.model_validate_json(config)
store = Store(uri, config.lease_s)
candidate = Candidate(archive, sha256, "ba9876543210")
previous = Candidate(stable, stable_sha256, "0123456789ab")
change = Change(candidate, previous, "me", datetime.now(UTC), "from another terminal")
print(store.start("churn", change, config).id)
"""


def test_a_rollout_started_elsewhere_is_carried_out(bundle: ServedBundle, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/rollout.db"
    stages = [{"weight": 50, "min_s": 2, "max_s": 120, "min_requests": 30}, {"weight": 100, "max_s": 120}]
    config = plan(stages=stages, rules={"error_rate": {}, "latency": None}, watch_s=1)
    offset = NOW - utc_now()
    began: list[float] = []
    ended = threading.Event()

    def companion(supervisor: Supervisor, over: threading.Event) -> None:
        began.append(time.monotonic())
        if len(began) == 1:
            return  # the supervisor restarts a companion that ends

        def make(rollout: Rollout) -> Controller:
            observer = LiveObserver(supervisor.gateway, LogFiles(tmp_path / "prediction-log"), config, offset)
            connections = Connections(
                Store(uri, config.lease_s), EnvoyTarget(supervisor), observer, Registered()
            )
            planned = rollout.planned(config)
            clock = Clock(utc_now, lambda seconds: (over.wait(seconds), None)[1])
            return Controller(planned, rules_of(planned), connections, clock)

        attend(Store(uri, config.lease_s), "churn", make, over, 0.2)
        ended.set()

    candidate, stable = altered(bundle, tmp_path), candidate_of(bundle.archive)
    with running_rig(bundle, tmp_path, companion=companion) as made:
        arguments = [uri, candidate.archive, candidate.sha256, stable.archive, stable.sha256]
        done = subprocess.run(
            [sys.executable, "-c", START, *arguments, config.model_dump_json()],
            check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )  # fmt: skip
        store, id = Store(uri, config.lease_s), done.stdout.strip().splitlines()[-1]
        clients = Clients(made.url)
        with clients.sending():
            deadline = time.monotonic() + 400
            while not store.load(id).over:
                assert time.monotonic() < deadline, store.history(id)
                time.sleep(0.5)
        assert store.load(id).phase == "promoted", store.load(id).outcome
        assert made.target.observe().stable == candidate.sha256
        assert clients.failed == 0
    assert len(began) == 2
    assert ended.is_set(), "the supervisor ends it and waits"
