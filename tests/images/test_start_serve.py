"""What a container loads is the signed archive alone: write access to its bucket starts no code."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from serving.config import ServingConfig
from support.image_scripts import image_script
from support.served_bundle import ServedBundle
from support.servers.container import SCRIPT, Container
from training.archive.signing import sign

start_serve = image_script("start_serve")
supervise = image_script("supervise")


def prepare(container: Container, memory_limit: int | None = None) -> list[str]:
    """The command of TorchServe."""
    commands = start_serve.prepare(container.environment, container.settings, memory_limit)
    return list(commands.torchserve)


@pytest.fixture
def container(bundle: ServedBundle, tmp_path: Path) -> Container:
    return Container(bundle.archive, tmp_path)


def test_a_private_copy_of_the_signed_archive_is_loaded(container: Container) -> None:
    for _ in range(2):  # a container may start again in the same pod
        command = prepare(container)
    own = Path(command[command.index("-s") + 1])
    assert own.stat().st_mode & 0o777 == 0o700
    assert (own / "churn.mar").read_bytes() == container.archive.read_bytes()
    assert f"model_store={own}\n" in container.written
    mounted = container.properties.read_text()
    for line in mounted.splitlines():
        if line.startswith(("models=", "job_queue_size=", "max_request_size=", "default_")):
            assert line in container.written, "sizes are those that were deployed"


def test_without_envoy_torchserve_listens_itself(container: Container) -> None:
    assert f"inference_address=http://{container.address}\n" not in _written(container)
    container.environment["CHURN_FRONT"] = "off"
    assert f"inference_address=http://{container.address}\n" in _written(container)


def _written(container: Container) -> str:
    commands = start_serve.prepare(container.environment, container.settings)
    assert (commands.envoy is None) is (container.environment.get("CHURN_FRONT") == "off")
    return container.written


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (lambda c: c.archive.with_name("churn.mar.sig").unlink(), "unsigned"),
        (lambda c: sign(c.archive, Ed25519PrivateKey.generate()), "not among the trusted signers"),
        (lambda c: c.archive.write_bytes(c.archive.read_bytes()[:-1] + b"x"), "was changed"),
        (lambda c: c.archive.with_name("churn.mar.sig").write_text("[" * 4000), "not a signature"),
        (lambda c: c.archive.with_name("churn.mar.sig").write_text('{"key": "é"}'), "not a signature"),
        (lambda c: c.environment.pop("CHURN_TRUSTED_SIGNERS"), "there is no trusted signer"),
        (lambda c: c.environment.update(CHURN_TRUSTED_SIGNERS="us nonsense"), "line 1"),
        (lambda c: _replace(c, "load_models=churn=churn.mar", "load_models=all"), "load_models"),
        (lambda c: _replace(c, "load_models=churn=churn.mar", "load_models=churn=../x.mar"), "load_models"),
        (lambda c: _replace(c, '"minWorkers": 1', '"minWorkers": "1\\\\nplugins_path=x"'), "minWorkers"),
        (lambda c: _replace(c, "job_queue_size=1000", "job_queue_size=-1"), "job_queue_size"),
        (lambda c: _replace(c, "models={", "models=[" * 4000 + "{"), "models"),
        (lambda c: c.properties.unlink(), "mount the model at /mnt/models"),
    ],
)
def test_what_is_not_as_it_was_deployed_is_refused_in_one_line(
    container: Container, harm: Callable[[Container], object], complaint: str
) -> None:
    harm(container)
    with pytest.raises(start_serve.Refused, match=complaint) as refused:
        prepare(container)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("address", ["8083", "127.0.0.1:99999", "taken"])
def test_an_address_for_probes_that_cannot_be_had_is_refused_in_one_line(
    container: Container, bundle: ServedBundle, address: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        if address == "taken":
            address = f"127.0.0.1:{other.getsockname()[1]}"
        ended = subprocess.run(
            [sys.executable, "-I", str(SCRIPT), str(container.settings)],
            env={**container.environment, **bundle.environment, "CHURN_READY_LISTEN": address},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"start-serve: CHURN_READY_LISTEN: {address}: ")
    assert ended.stderr.count("\n") == 1 and ended.stdout == ""


def test_no_other_property_of_the_mounted_file_is_taken(container: Container) -> None:
    bad = (
        "plugins_path=/mnt/models/plugins",
        "enable_model_api=true",
        "management_address=http://0.0.0.0:8081",
    )
    container.properties.write_text("\n".join((container.properties.read_text(), *bad)))
    prepare(container)
    assert not [line for line in bad if line in container.written]


def _replace(container: Container, old: str, new: str) -> None:
    text = container.properties.read_text()
    assert old in text
    container.properties.write_text(text.replace(old, new))


def test_torchserve_answers_and_every_line_of_the_container_is_an_object(
    container: Container, bundle: ServedBundle
) -> None:
    with container.running(bundle.environment) as server:
        hung_s, stopped = _hang(container.url, server)
        assert hung_s < ServingConfig().pod_response_timeout_s + 3, "then its requests are given up"
        assert container.answer(server) > 0, "another worker has taken its place"
    code = server.returncode
    lines = [json.loads(line) for line in container.log.read_text().splitlines()]
    assert code == 143, "as of a process that SIGTERM ended"
    assert {"time", "level", "source", "message"} <= lines[0].keys()
    assert [
        line for line in lines if "loaded" in line["message"] or "Torch worker started" in line["message"]
    ]
    errors = [
        line["message"] for line in lines if (line["source"], line["level"]) == ("start-serve", "error")
    ]
    assert len(errors) == 1 and errors[0].startswith(f"worker {stopped} ended; not for memory")


def test_a_limit_that_no_worker_fits_in_is_refused_with_the_figure(container: Container) -> None:
    with pytest.raises(start_serve.Refused, match=r"memory limit 420 MiB: .* needs at least 650 MiB"):
        start_serve.prepare(container.environment, container.settings, 420 << 20)
    assert prepare(container, 1 << 30)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _hang(address: str, server: "subprocess.Popen[bytes]") -> tuple[float, int]:
    """Stop the worker as a deadlock would: how long a request waited for it, in seconds, and its process
    id."""
    (worker,) = {worker for child in children(server.pid) for worker in supervise.workers_of(child)}
    os.kill(worker, signal.SIGSTOP)
    began = time.monotonic()
    answer = httpx.post(f"{address}/predictions/churn", json={"user_id": 1}, timeout=30, trust_env=False)
    assert answer.status_code >= 500
    return time.monotonic() - began, worker
