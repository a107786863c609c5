"""A person's way on a real cluster: from empty to a promoted canary, and back, in the order of these tests.

They share one InferenceService, and each continues where the one before it ended.
"""

import time
from collections.abc import Iterator

import httpx
import pytest

from handlers.identity import mask
from support.clients.documented import IDS, documented, outcomes, wrong
from support.cluster.by_name import reached_by_name
from support.cluster.models import MASK_KEY
from support.cluster.service import Requests, Service, applied_again
from support.waits import within


@pytest.fixture
def controlled(evidence: None, service: Service) -> Iterator[Service]:
    """With a controller."""
    with service.controller():
        yield service


def test_the_manifests_are_applied_before_the_first_model_whose_absence_is_said(service: Service) -> None:
    assert service.apply() == 0
    assert service.apply() == 0

    def said() -> bool:
        messages = [
            ((one.get("lastState") or {}).get("terminated") or (one["state"].get("terminated") or {})).get(
                "message", ""
            )
            for pod in service.pods()
            for one in pod["status"].get("containerStatuses", [])
        ]
        return any("run `churn deploy`" in message for message in messages)

    within(90, said)


def test_the_first_deploy_serves(service: Service) -> None:
    began = time.monotonic()
    shown = service.churn("deploy", "--reason", "the first model")
    assert "first model of this cluster" in shown
    assert service.served.startswith(service.to.store)
    within(60, lambda: len([p for p in service.ask() if p["churn_probability"] is not None]) > 0)
    print(f"first model: {time.monotonic() - began:.0f} s")


def test_the_doctor_finds_only_a_prometheus_that_is_not_there(service: Service) -> None:
    there = bool(service.to.prometheus)
    shown = service.churn("doctor", "--cluster", code=0 if there else 1)
    broken = [line.split()[1] for line in shown.splitlines() if line.startswith("broken")]
    assert broken == ([] if there else ["Prometheus"])
    assert "a pod reaches CHURN_FEAST_ONLINE, CHURN_FEAST_REGISTRY, CHURN_DOCTOR_STORE" in shown


def test_every_call_of_each_standard_client_has_the_same_bits(service: Service) -> None:
    """docs/clients.md, over HTTP and gRPC, through the gateway of the cluster."""
    answers = service.ask(len(IDS))
    expected = [one["churn_probability"] for one in answers]
    masked = [mask(str(user), MASK_KEY.encode()) for user in IDS]
    with reached_by_name(service.to.gateway, service.host, service.folder) as address:
        [version] = httpx.get(f"http://{address}/v2/models/churn").json()["versions"]
        found = outcomes(address, {}, address, masked, version)
    assert wrong(found, expected) == {}
    assert set(found) <= set(documented(True))


def test_every_line_of_the_container_is_an_object(service: Service) -> None:
    import json

    from support.cluster.inventory import done

    name = next(p["metadata"]["name"] for p in service.pods() if p["status"]["phase"] == "Running")
    lines = done("logs", "-n", service.namespace, name, "-c", "kserve-container").splitlines()
    assert {"time", "level", "source", "message"} <= json.loads(lines[-1]).keys()


def test_an_apply_after_it_changes_no_model(service: Service) -> None:
    before = service.served
    assert service.apply() == 0
    assert service.served == before


def test_a_good_canary_is_promoted_while_a_self_heal_loop_applies(controlled: Service) -> None:
    service = controlled
    first = service.served
    service.churn.package(seed=2)
    with Requests(service) as requests:
        with applied_again(service):
            service.churn("deploy", "--reason", "the second model")
            ended = service.ended()
        time.sleep(5)
    assert ended["phase"] == "promoted", ended
    assert service.served != first
    assert requests.lost == []
    assert len(requests.answers) >= 2, "both models answered"


def test_an_apply_after_a_promotion_changes_no_model(service: Service) -> None:
    before = service.served
    assert service.apply() == 0
    assert service.served == before


def test_the_first_promotion_is_taken_back(controlled: Service) -> None:
    """After the watch its pods are gone, and start again first."""
    before = controlled.served
    with Requests(controlled) as requests:
        controlled.churn("rollback", "--reason", "a test")
        within(180, lambda: controlled.served != before)
    assert requests.lost == []


def test_within_the_watch_the_way_back_needs_no_pod_to_start(controlled: Service) -> None:
    """The second model again, with the pods of the first one at 0 %."""
    service, first = controlled, controlled.served
    with Requests(service) as requests:
        service.churn("deploy", "--reason", "again")
        within(300, lambda: service.status()["phase"] == "watching")
        assert service.served != first
        began = time.monotonic()
        service.churn("rollback", "--reason", "a test")
        within(60, lambda: service.served == first)
        back_s = time.monotonic() - began
    print(f"back within the watch: {back_s:.1f} s")
    assert requests.lost == []
    assert back_s < 30, "with the start of the command; without pods it takes the time of theirs"
