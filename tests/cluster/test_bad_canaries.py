"""Canaries that are bad, each in its own way, on a real cluster under load: taken back or held, with the
reason in `churn rollout status` that a person needs, and what served before serves still.

They share one InferenceService, and each ends with its first model. The archives are real, signed, and with
the report of their gates: what a person could deploy.
"""

import hashlib
import json
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import pytest

from support.cluster.bad_archives import (
    FAILS,
    GOOD,
    LARGE,
    REFUSES,
    SLOW,
    Bad,
    altered,
    trained_on_who_stayed,
)
from support.cluster.models import Packaged
from support.cluster.outages import no_room
from support.cluster.service import Requests, Service
from support.waits import within

PER_SECOND = 10
CAPACITY_S = 40


@dataclass
class Ended:
    """Of a rollout that was taken back."""

    outcome: str
    requests: Requests
    stable: str
    """The version that served before, and serves still."""

    def cost_nothing(self) -> bool:
        return not self.requests.lost and set(self.requests.answers) == {self.stable}


class Trials:
    def __init__(self, service: Service) -> None:
        self.service = service
        assert service.apply() == 0
        service.churn.deploy(service.first, "the first model")
        within(120, lambda: len(service.ask()) > 0)
        self.good = service.churn.package(seed=2)

    def archive(self, name: str, bad: Bad) -> Packaged:
        folder = self.service.folder
        return altered(self.good, folder / "bad" / name, folder / "var", bad)

    def taken_back(
        self,
        model: Packaged,
        plan: Sequence[str],
        meanwhile: AbstractContextManager[None] | None = None,
        look: Callable[[], object] = lambda: None,
        controller: Sequence[str] = (),
    ) -> Ended:
        """A rollout of `model` under load, from `churn deploy` to its end. `look`: called when it has
        begun."""
        service = self.service
        before, began = service.served, time.monotonic()
        with (
            service.controller(*controller),
            Requests(service, PER_SECOND) as requests,
            meanwhile or nullcontext(),
        ):
            service.churn.deploy(model, "a drill", given=plan)
            look()
            ended = service.ended(900)
        return self._ended(ended, requests, before, time.monotonic() - began)

    def harmed_in_the_store(self, model: Packaged, plan: Sequence[str], harm: str) -> Ended:
        """No controller runs until the archive's folder is harmed."""
        service = self.service
        before, began = service.served, time.monotonic()
        with Requests(service, PER_SECOND) as requests:
            service.churn.deploy(model, "a drill", code=5, given=plan)
            spoil(service, service.status()["archive"], harm)
            with service.controller():
                ended = service.ended(900)
        return self._ended(ended, requests, before, time.monotonic() - began)

    def _ended(self, status: Any, requests: Requests, before: str, seconds: float) -> Ended:
        service = self.service
        print(f"{seconds:.0f} s: {status['outcome']}; {requests.summary}; {dict(requests.answers)}")
        assert status["phase"] == "rolled_back", status
        # what a person sees: exit code 3 says that the cluster is as recorded again
        shown = service.churn("rollout", "status", code=3)
        assert without_spaces(status["outcome"]) in without_spaces(shown)
        assert service.served == before
        assert len(service.ask()) > 0
        return Ended(status["outcome"], requests, service.first.version)


def without_spaces(text: str) -> str:
    """A table folds long texts."""
    return "".join(text.split())


@pytest.fixture(scope="module")
def trials(evidence: None, service: Service) -> Trials:
    return Trials(service)


def patient(seconds: float) -> tuple[str, ...]:
    return (f"rollout.ready_timeout_s={seconds:g}",)


def stages(*weights_and_seconds: tuple[int, float]) -> str:
    plan = [
        {"weight": weight, "min_s": seconds, "max_s": 600, "min_requests": 50}
        for weight, seconds in weights_and_seconds
    ]
    return f"rollout.stages={json.dumps(plan)}"


@pytest.mark.parametrize(
    ("harm", "words"), [("gone", "Init:storage-initializer"), ("forged", "not a signature")]
)
def test_files_that_are_gone_or_forged(trials: Trials, harm: str, words: str) -> None:
    ended = trials.harmed_in_the_store(trials.archive(harm, GOOD), patient(90), harm)
    assert words in ended.outcome
    assert ended.cost_nothing()


def test_an_image_that_is_gone(trials: Trials) -> None:
    """Stable's pods stay, since a rolling update waits for new ones."""
    if trials.service.mode == "knative":
        pytest.skip("in Knative mode another image is another revision, and no canary")
    model = trials.archive("image", GOOD)
    ended = trials.taken_back(model, patient(60), trials.service.another_image("gone"))
    assert "ImagePullBackOff" in ended.outcome or "ErrImagePull" in ended.outcome
    assert ended.cost_nothing()


def test_a_model_that_refuses_the_features_of_this_store(trials: Trials) -> None:
    ended = trials.taken_back(trials.archive("refuses", REFUSES), patient(240))
    assert "carries spec_digest" in ended.outcome
    assert "build and materialize the features" in ended.outcome
    assert ended.cost_nothing()


def test_a_model_that_needs_more_memory_than_a_pod_has(trials: Trials) -> None:
    ended = trials.taken_back(trials.archive("large", LARGE), patient(240))
    assert "OOMKilled" in ended.outcome or "workers for memory before one was ready" in ended.outcome
    assert ended.cost_nothing()


def test_a_pod_without_a_node_is_waited_for_and_then_taken_back(trials: Trials) -> None:
    waits: list[str] = []

    def look() -> None:
        def waiting() -> bool:
            seen = trials.service.status()["look"] or {}
            waits.append(str(seen.get("reason")))
            return "the canary waits for a node" in waits[-1] and "Unschedulable" in waits[-1]

        within(60, waiting, lambda: waits[-3:])

    ended = trials.taken_back(
        trials.archive("no-node", GOOD),
        patient(20),
        no_room(),
        look,
        controller=(f"rollout.capacity_timeout_s={CAPACITY_S}",),
    )
    assert "Unschedulable" in ended.outcome
    assert ended.cost_nothing()


def test_a_model_that_fails_costs_its_share_until_it_is_taken_back(trials: Trials) -> None:
    """Nobody retries for the callers of a cluster: those 503s are theirs."""
    ended = trials.taken_back(trials.archive("fails", FAILS), (stages((10, 5), (50, 5), (100, 5)),))
    assert ended.outcome.startswith("error_rate: ")
    assert {lost[:3] for lost in ended.requests.lost} == {"503"}
    assert all("made to fail" in lost for lost in ended.requests.lost)
    # 30 % of 10 %, and never another weight
    assert len(ended.requests.lost) < 0.1 * len(ended.requests.sent)


def test_a_model_that_is_slow(trials: Trials) -> None:
    """Callers of its share wait; nothing is lost."""
    plan = (
        "rollout.rules.latency={objective_ms: 250, tolerance: 0.01, max_p99_ratio: 1.5, min_requests: 500}",
        stages((10, 300), (50, 60), (100, 60)),
    )
    ended = trials.taken_back(trials.archive("slow", SLOW), plan)
    assert ended.outcome.startswith("latency: ")
    assert ended.requests.lost == []


def test_a_model_with_other_scores(trials: Trials) -> None:
    plan = (
        "rollout.rules.score_shift={tolerance: 0.05, min_customers: 50}",
        stages((10, 60), (50, 60), (100, 60)),
    )
    ended = trials.taken_back(trained_on_who_stayed(trials.service.churn, seed=3), plan)
    assert ended.outcome.startswith("score_shift: mean score ")
    assert ended.requests.lost == []


def another_program(trials: Trials) -> Packaged:
    """The report is of the program that was there before."""
    with zipfile.ZipFile(trials.service.first.archive) as content:
        program = content.read("model.pt2")
    digest = hashlib.sha256(program).hexdigest()

    def named(bundle: dict[str, Any]) -> None:
        bundle["program"]["sha256"] = digest

    return trials.archive("program", Bad(bundle=named, files={"model.pt2": program}))


def changed_after_signing(trials: Trials) -> Packaged:
    model = trials.archive("changed", GOOD)
    with zipfile.ZipFile(model.archive, "a") as content:
        content.writestr("handlers/more.py", "")
    return model


def for_this_machine(trials: Trials) -> Packaged:
    store = b"project: churn_prediction\nregistry: registry.db\nonline_store: {type: sqlite}\n"
    return trials.archive("here", Bad(files={"feature_store.yaml": store}))


@pytest.mark.parametrize(
    ("made", "code", "words"),
    [
        (another_program, 3, "it judged program"),
        (changed_after_signing, 2, "the archive was changed"),
        (for_this_machine, 2, "pods of a cluster cannot read it"),
    ],
)
def test_what_can_be_seen_here_is_refused_by_deploy_and_begins_nothing(
    trials: Trials, made: Callable[[Trials], Packaged], code: int, words: str
) -> None:
    before = trials.service.status().get("id"), trials.service.served
    shown = trials.service.churn.deploy(made(trials), "a drill", code=code)
    assert without_spaces(words) in without_spaces(shown)
    assert (trials.service.status().get("id"), trials.service.served) == before


def spoil(service: Service, folder: str, harm: str) -> None:
    """A folder in the store: its files gone, or its signature overwritten."""
    import boto3  # of the extra loopback, which collecting the tests does not need
    from botocore.config import Config as S3Config

    aws = service.to.aws
    client = boto3.client(
        "s3", endpoint_url=aws["AWS_ENDPOINT_URL"], aws_access_key_id=aws["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=aws["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1",
        config=S3Config(s3={"addressing_style": "path"}),
    )  # fmt: skip
    bucket, _, prefix = folder.removeprefix("s3://").partition("/")
    for one in client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]:
        if harm == "gone":
            client.delete_object(Bucket=bucket, Key=one["Key"])
        elif one["Key"].endswith(".sig"):
            client.put_object(Bucket=bucket, Key=one["Key"], Body=b"{}")
