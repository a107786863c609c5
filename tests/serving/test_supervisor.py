"""Processes that die are started again, requests meanwhile get a 503 with Retry-After, nothing is left
behind.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest

from core.errors import ServingError
from serving.client import running
from serving.gateway.program import envoy_program
from support.served_bundle import ServedBundle, changed_archive
from support.servers.stack import Stack, supervisor_of, ticking
from support.waits import within

BODY = {"user_id": 1}


@pytest.fixture(scope="module")
def stack(bundle: ServedBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = supervisor_of(bundle, tmp_path_factory.mktemp("supervised"))
    with made.supervisor, ticking(made.supervisor):
        yield made


def answers(stack: Stack) -> bool:
    try:
        return stack.post("/predictions/churn", json=BODY).status_code == 200
    except httpx.TransportError:
        return False


def test_the_jvm_is_started_again(stack: Stack) -> None:
    before = running(stack.files)
    pid = stack.supervisor.model.pid
    os.kill(pid, signal.SIGKILL)
    within(10, lambda: running(stack.files)["state"] == "restarting")
    # meanwhile: not ready, and a 503 with Retry-After
    refused = stack.post("/predictions/churn", json=BODY)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["error"].startswith("no server can answer")
    within(10, lambda: stack.ask("GET", "/v2/health/ready").status_code == 503)
    assert stack.ask("GET", "/v2/health/ready").json() == {"ready": False}
    within(90, lambda: answers(stack))
    within(10, lambda: stack.ask("GET", "/v2/health/ready").status_code == 200)
    within(10, lambda: running(stack.files)["state"] == "ready")
    after = running(stack.files)
    assert after["restarts"] == before["restarts"] + 1
    assert after["torchserve_pid"] not in (pid, 0)
    assert after["inference"] == before["inference"], "clients need no new address"


def test_envoy_is_started_again_at_the_same_address(stack: Stack) -> None:
    before = running(stack.files)
    os.kill(stack.supervisor.gateway.pid, signal.SIGKILL)
    within(30, lambda: stack.supervisor.gateway.pid != before["gateway_pid"] and answers(stack))
    within(10, lambda: running(stack.files)["state"] == "ready")
    assert running(stack.files)["gateway"] == before["gateway"]
    # the keys are required again too
    assert httpx.post(stack.url + "/predictions/churn", json=BODY, trust_env=False).status_code == 401


def test_a_dead_worker_is_started_again_and_requests_meanwhile_wait_or_are_refused(stack: Stack) -> None:
    jvm = psutil.Process(stack.supervisor.model.pid)
    [worker] = jvm.children()
    refused = []

    def the_next_worker_answers() -> bool:
        answer = stack.post("/predictions/churn", json=BODY)
        if answer.status_code != 200:
            refused.append(answer)
        return answer.status_code == 200 and [child.pid for child in jvm.children()] != [worker.pid]

    worker.kill()
    within(90, the_next_worker_answers)
    # TorchServe keeps a request for its next worker or refuses it: which one depends on the moment
    for answer in refused:
        assert answer.status_code in (503, 504), answer.text
        assert answer.status_code != 503 or "retry-after" in answer.headers
    assert stack.supervisor.model.pid == jvm.pid, "TorchServe itself starts its worker again"


def test_another_version_is_served_and_a_bad_one_is_not(
    stack: Stack, bundle: ServedBundle, tmp_path: Path
) -> None:
    assert stack.post("/predictions/churn", json=BODY).json()["model_version"] == "0123456789ab"
    other = changed_archive(bundle, tmp_path / "other", model_version="ba9876543210")
    stack.supervisor.servers = replace(stack.supervisor.servers, newest=lambda: other)
    stack.supervisor.change()
    assert stack.post("/predictions/churn", json=BODY).json()["model_version"] == "ba9876543210"
    assert stack.ask("GET", "/v2/models/churn").json()["versions"] == ["ba9876543210"]
    bad = changed_archive(bundle, tmp_path / "bad", spec_digest="0" * 64)
    stack.supervisor.servers = replace(stack.supervisor.servers, newest=lambda: bad)
    with pytest.raises(ServingError, match="does not start"):
        stack.supervisor.change()
    record = running(stack.files)
    assert (record["state"], record["changes"]) == ("ready", 2)
    assert "does not start" in record["reason"]
    assert stack.post("/predictions/churn", json=BODY).json()["model_version"] == "ba9876543210"


@pytest.mark.slow
def test_the_server_is_replaced_before_its_tokens_end(bundle: ServedBundle, tmp_path: Path) -> None:
    made = supervisor_of(bundle, tmp_path)
    with made.supervisor:
        first = made.supervisor.model
        made.supervisor.tick(first.tokens.expire - timedelta(days=2))
        assert made.supervisor.model is first
        made.supervisor.tick(first.tokens.expire - timedelta(hours=1))
        within(60, lambda: made.supervisor.model is not first)
        within(30, lambda: not first.alive)
        assert made.supervisor.model.tokens.inference != first.tokens.inference
        assert made.post("/predictions/churn", json=BODY).status_code == 200
        assert first.tokens.expire - datetime.now(UTC) > timedelta(days=80)


PARENT = """
import os, sys, time
from datetime import UTC, datetime
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from support.served_bundle import ServedBundle
from support.servers.stack import supervisor_of
made = supervisor_of(ServedBundle(Path(sys.argv[1])), Path(sys.argv[2]))
with made.supervisor as ours:
    print(ours.model.pid, ours.gateway.pid, flush=True)
    time.sleep(300)
"""


def test_kill_9_of_the_parent_leaves_no_process_and_no_record(bundle: ServedBundle, tmp_path: Path) -> None:
    tests = Path(__file__).resolve().parent
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(bundle.root), str(tmp_path), str(tests)],
        env={**os.environ, "PYTHONPATH": f"{tests.parent}:{tests.parent.parent}"},
        stdout=subprocess.PIPE,
    )
    try:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        processes = [
            p for pid in pids for p in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))
        ]
        scratch = Path(processes[0].cwd())
        record = tmp_path / "var" / "serving" / "server.json"
        assert json.loads(record.read_text())["state"] == "ready"
    finally:
        parent.kill()
        parent.communicate()
    _, left = psutil.wait_procs(processes, timeout=60)
    assert not left
    within(30, lambda: not record.exists() and not scratch.exists())


def test_the_error_on_another_machine_names_the_option_without_a_gateway(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(ServingError, match="churn serve --no-gateway"):
        envoy_program()
