"""Why pods are not ready, in the words of Kubernetes."""

from datetime import UTC, datetime
from typing import Any

import pytest

from rollout.targets.kserve.pods import latest_warning, trouble

AT = "2026-11-27T12:00:00Z"


def pod(name: str = "churn-v2-1", node: bool = True, **status: Any) -> dict[str, Any]:
    placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": AT}
    if not node:
        placed |= {
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient cpu.",
        }
    return {
        "metadata": {"name": name, "creationTimestamp": AT},
        "status": {"conditions": [placed], **status},
    }


def running(**last: Any) -> list[dict[str, Any]]:
    container: dict[str, Any] = {"name": "kserve-container", "state": {"running": {}}}
    return [container | ({"lastState": {"terminated": last}} if last else {})]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            pod(node=False),
            "churn-v2-1: Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.",
        ),
        (
            pod(
                initContainerStatuses=[
                    {
                        "name": "storage-initializer",
                        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
                        "lastState": {
                            "terminated": {"reason": "Error", "exitCode": 1, "message": "no\nsuch key"}
                        },
                    }
                ]
            ),
            "churn-v2-1: Init:storage-initializer: CrashLoopBackOff: Error (exit code 1): no such key",
        ),
        (
            pod(
                containerStatuses=[
                    {
                        "name": "kserve-container",
                        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}},
                    }
                ]
            ),
            "churn-v2-1: kserve-container: ImagePullBackOff: not found",
        ),
        (
            pod(containerStatuses=running(reason="OOMKilled", exitCode=137)),
            "churn-v2-1: kserve-container: OOMKilled (exit code 137)",
        ),
        (
            pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."),
            "churn-v2-1: Evicted: The node was low on resource: memory.",
        ),
    ],
)
def test_the_reason_and_the_last_message_of_the_pod(found: dict[str, Any], words: str) -> None:
    said = trouble([found])
    assert said is not None and said.words == words
    assert said.starting_since is None


def test_a_pod_that_starts_is_no_failure() -> None:
    said = trouble([pod(containerStatuses=running())])
    assert said is not None and not said.needs_node
    assert said.starting_since == datetime(2026, 11, 27, 12, tzinfo=UTC)


def test_one_that_has_failed_says_more_than_one_that_starts() -> None:
    failed = pod("old", containerStatuses=running(reason="Error", exitCode=2, message="unsigned"))
    young = pod("young", containerStatuses=running())
    young["metadata"]["creationTimestamp"] = "2026-11-27T12:00:09Z"
    said = trouble([failed, young])
    assert said is not None and "unsigned" in said.words


def test_ready_and_removed_pods_are_left_out() -> None:
    ready, removed = pod(), pod()
    ready["status"]["conditions"].append({"type": "Ready", "status": "True"})
    removed["metadata"]["deletionTimestamp"] = AT
    assert trouble([ready, removed]) is None


def test_without_pods_the_newest_warning_says_why_there_are_none() -> None:
    events = [
        {"involvedObject": {"name": "churn-v2-predictor-7f"}, "reason": "FailedCreate",
         "message": f"exceeded quota {n}", "lastTimestamp": f"2026-11-27T12:00:0{n}Z"}
        for n in (1, 3, 2)
    ]  # fmt: skip
    events.append({"involvedObject": {"name": "another"}, "reason": "Failed", "lastTimestamp": AT})
    assert latest_warning(events, "churn-v2-predictor") == (
        "churn-v2-predictor-7f: FailedCreate: exceeded quota 3"
    )
    assert latest_warning(events, "churn-v9") is None
