"""The Envoy target with real processes: what it shows is what is so, and every action may be repeated."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import httpx
import pytest

from core.errors import ServingError
from rollout.observers.envoy_stats import between, totals
from rollout.observers.observer import Opened
from rollout.targets.target import Candidate
from support.served_bundle import ServedBundle

from support.drills.rig import VERSION, Rig, altered, plan, running_rig, utc_now  # isort: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
STABLE = "0123456789ab"


@pytest.fixture(scope="module")
def rig(bundle: ServedBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running_rig(bundle, tmp_path_factory.mktemp("target")) as made:
        yield made


@pytest.fixture(scope="module")
def candidate(bundle: ServedBundle, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    return altered(bundle, tmp_path_factory.mktemp("candidate"))


@pytest.fixture(scope="module")
def deployed(rig: Rig, candidate: Candidate) -> Candidate:
    began = time.monotonic()
    rig.target.deploy(candidate)
    assert time.monotonic() - began < 5, "it does not wait for TorchServe"
    state = rig.target.observe()
    assert (state.canary, state.ready, state.detail) == (candidate.sha256, False, "TorchServe is starting")
    with pytest.raises(ServingError, match="gets no traffic: TorchServe is starting"):
        rig.target.set_weight(5)
    rig.target.deploy(candidate)  # again: nothing changes
    while not (state := rig.target.observe()).ready:
        assert time.monotonic() - began < 180, state.detail
        time.sleep(0.2)
    assert (state.weight, state.mirror, state.stable) == (0, False, rig.stable.sha256)
    return candidate


def version_of(client: httpx.Client, user: int, **headers: str) -> str:
    answer = client.post("/predictions/churn", json={"user_id": user}, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["model_version"])


def grpc_version_of(channel: grpc.Channel, user: int) -> str:
    """Open Inference Protocol's ModelInfer, by hand: its model_version is the answer's second field."""

    def field(number: int, content: bytes) -> bytes:
        assert len(content) < 128
        return bytes([number << 3 | 2, len(content)]) + content

    identifier = bytes([user]) if user < 128 else bytes([user & 0x7F | 0x80, user >> 7])
    contents = field(3, identifier)
    tensor = field(1, b"user_id") + field(2, b"INT64") + field(3, b"\x01") + field(5, contents)
    infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    answer = infer(field(1, b"churn") + field(5, tensor), timeout=20)
    assert answer[0] == 0x0A
    second = 2 + answer[1]
    return str(answer[second + 2 : second + 2 + answer[second + 1]].decode())


def test_grpc_customers_meet_the_variant_that_http_s_do(rig: Rig, deployed: Candidate) -> None:
    rig.target.set_weight(50)
    before = totals(rig.supervisor.gateway)
    address = rig.url.removeprefix("http://")
    with (
        httpx.Client(base_url=rig.url, trust_env=False, timeout=30) as client,
        grpc.insecure_channel(address) as channel,
    ):
        users = [*range(1, 40), *range(150, 190)]
        by_http = {user: version_of(client, user) for user in users}
        by_grpc = {user: grpc_version_of(channel, user) for user in users}
    assert by_http == by_grpc
    assert set(by_http.values()) == {STABLE, VERSION}
    after = totals(rig.supervisor.gateway)
    counted = [between(before, after, variant, 250) for variant in ("stable", "canary")]
    assert sum(one.requests for one in counted) == 2 * len(users)
    assert sum(one.errors for one in counted) == 0


def test_the_canary_is_labelled_in_the_log_and_a_shadow_pairs_scores(rig: Rig, deployed: Candidate) -> None:
    observer = rig.observer(plan())
    window = Opened(0, True, utc_now(), before=observer.mark())
    rig.target.set_weight(0, mirror=True)
    rig.target.set_weight(0, mirror=True)
    assert rig.target.observe().mirror
    with httpx.Client(base_url=rig.url, trust_env=False, timeout=30) as client:
        assert {version_of(client, user) for user in range(1, 61)} == {STABLE}
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        evidence = observer.observe([window], utc_now()).current
        if len(evidence.pairs) == 60 and evidence.canary.requests == 60:
            break
        time.sleep(0.3)
    assert (evidence.stable.requests, evidence.canary.requests) == (60, 60)
    assert (evidence.stable.customers, evidence.canary.customers) == (60, 60)
    assert evidence.pairs.tolist() == [0.0] * 60, "the same program gives the same bits"
    rig.target.set_weight(0)


def test_another_archive_under_the_name_is_refused(rig: Rig, candidate: Candidate, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="is not the 000000000000 that was judged"):
        rig.target.deploy(replace(candidate, sha256="0" * 64))
    with pytest.raises(ServingError, match="No such file"):
        rig.target.promote(replace(candidate, archive=str(tmp_path / "gone.mar")))
    assert rig.target.observe().stable == rig.stable.sha256


def test_rolling_back_may_be_repeated(rig: Rig, deployed: Candidate) -> None:
    rig.target.set_weight(25)
    for _ in range(2):
        rig.target.rollback()
        state = rig.target.observe()
        assert (state.weight, state.mirror, state.canary, state.ready) == (0, False, None, False)
        assert state.stable == rig.stable.sha256
        assert state.detail == "there is no canary"
