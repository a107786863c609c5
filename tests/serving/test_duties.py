"""The supervisor repeats a duty that failed, and meanwhile requests are answered; with real processes."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

import serving.gateway.log_rotation
import serving.gateway.process
import serving.supervisor
from core.errors import ServingError
from serving.archive import Archive
from serving.client import running
from serving.config import ServingConfig
from serving.restarts import RestartPolicy
from serving.torchserve.server import TorchServe
from serving.torchserve.upstream import Upstream
from support.served_bundle import ServedBundle
from support.servers.stack import Stack, supervisor_of, ticking
from support.waits import within

BODY = {"user_id": 1}


@pytest.fixture(scope="module")
def environment(bundle: ServedBundle) -> dict[str, str]:
    """The workers' environment. When a test changes it, the next worker gets the change."""
    return dict(bundle.environment)


@pytest.fixture(scope="module")
def stack(
    bundle: ServedBundle, tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> Iterator[Stack]:
    made = supervisor_of(bundle, tmp_path_factory.mktemp("duties"))

    def server(archive: Archive, name: str) -> TorchServe:
        return TorchServe(ServingConfig(), archive, dict(environment), made.files, name)

    made.supervisor.servers = replace(made.supervisor.servers, stable=server)
    with made.supervisor, ticking(made.supervisor):
        yield made


def status(stack: Stack) -> int:
    """The status of a prediction; 0 when the connection is refused."""
    try:
        return stack.post("/predictions/churn", json=BODY).status_code
    except httpx.TransportError:
        return 0


def answers(stack: Stack) -> bool:
    return status(stack) == 200


def test_a_renewal_that_fails_does_not_end_the_service(
    stack: Stack, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the feature registry no worker starts. The tokens of the present server are valid for a day."""
    ours, first = stack.supervisor, stack.supervisor.model
    monkeypatch.setattr(serving.supervisor, "warm_up", lambda server: 0)
    monkeypatch.setattr(serving.supervisor, "RENEWALS", RestartPolicy(first_wait_s=0.5, longest_wait_s=0.5))
    there = environment["CHURN_FEAST_REGISTRY"]
    environment["CHURN_FEAST_REGISTRY"] = there + ".gone"
    ends = first.tokens.expire - timedelta(hours=1)
    try:
        ours.tick(ends)
        within(60, lambda: "does not start" in running(stack.files)["reason"])
        assert ours.model is first and answers(stack)
        assert running(stack.files)["state"] == "ready"
    finally:
        environment["CHURN_FEAST_REGISTRY"] = there

    def renewed() -> bool:
        ours.tick(ends)
        return ours.model is not first

    within(60, renewed)
    assert answers(stack)
    within(5, lambda: running(stack.files)["reason"] == "")


def test_a_list_of_keys_that_cannot_be_read_changes_nothing(stack: Stack) -> None:
    stack.files.api_keys.chmod(0o644)
    within(5, lambda: "chmod 600" in running(stack.files)["reason"])
    assert answers(stack)
    stack.files.api_keys.chmod(0o600)
    within(5, lambda: running(stack.files)["reason"] == "")
    added = stack.keys.add("afterwards", datetime.now(UTC))
    within(5, lambda: stack.ask("GET", "/v2", headers={"x-api-key": added}).status_code == 200)


def test_an_access_log_that_cannot_be_moved_changes_nothing(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = stack.supervisor.gateway.access_log.with_suffix(".1.log")
    (moved / "in the way").mkdir(parents=True)
    monkeypatch.setattr(serving.gateway.log_rotation, "LOG_BYTES", 0)
    within(15, lambda: answers(stack) and moved.name in running(stack.files)["reason"])
    (moved / "in the way").rmdir()
    moved.rmdir()
    within(15, lambda: answers(stack) and moved.is_file())
    within(5, lambda: running(stack.files)["reason"] == "")


def test_the_gateway_does_not_wait_for_torchserve(stack: Stack) -> None:
    """Both processes are killed. Each has its own waits, and TorchServe starts in the background."""
    ours = stack.supervisor
    model, gateway = ours.model, ours.gateway.pid
    os.kill(model.pid, signal.SIGKILL)
    within(5, lambda: ours._background.is_alive())
    os.kill(gateway, signal.SIGKILL)
    within(10, lambda: ours.gateway.pid != gateway and status(stack) == 503)
    assert ours.model is model, "TorchServe takes seconds to start; the gateway must not wait for it"
    within(90, lambda: ours.model is not model and answers(stack))


def test_an_upstream_that_never_answers_does_not_stay_in_the_slot(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, good = stack.supervisor.gateway, stack.supervisor.model.upstream
    monkeypatch.setattr(serving.gateway.process, "APPLIED_WITHIN_S", 1.5)
    with pytest.raises(ServingError, match="did not apply its new endpoints"):
        gateway.set_upstream("stable", Upstream(9, 9, "another-token"))
    within(5, lambda: set(gateway.hosts("stable")) == {good.inference_port})
    assert {answers(stack) for _ in range(20)} == {True}
