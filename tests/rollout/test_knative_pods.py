"""The minimum of a revision's PodAutoscaler while a canary has a share, and after."""

import pytest

from rollout.targets.kserve.cluster import POD_AUTOSCALER
from rollout.targets.kserve.knative import Knative
from rollout.targets.kserve.marks import REPLICAS
from rollout.targets.kserve.revision_pods import BEFORE, MIN_SCALE, RevisionPods, raised, restored
from support.kube import knative
from support.kube.cluster import SECOND, client, cluster, config, found, service

STABLE = "churn-predictor-00001"


@pytest.mark.parametrize("own", [{MIN_SCALE: "3"}, {}])
def test_a_minimum_only_grows_and_is_restored_at_the_end(own: dict[str, str]) -> None:
    autoscaler = {"metadata": {"annotations": dict(own)}}

    def carry_out(patch: dict[str, dict[str, dict[str, str | None]]] | None) -> None:
        assert patch is not None
        for name, text in patch["metadata"]["annotations"].items():
            autoscaler["metadata"]["annotations"].pop(name, None)
            if text is not None:
                autoscaler["metadata"]["annotations"][name] = text

    carry_out(raised(autoscaler, 5, stable_at_start=8))
    carry_out(raised(autoscaler, 7, stable_at_start=99))
    assert autoscaler["metadata"]["annotations"] == {
        MIN_SCALE: "7",
        BEFORE: own.get(MIN_SCALE, ""),
        REPLICAS: "8",
    }
    assert raised(autoscaler, 6) is None
    carry_out(restored(autoscaler))
    assert autoscaler["metadata"]["annotations"] == own
    assert restored(autoscaler) is None


def test_a_write_at_the_same_time_is_not_overwritten() -> None:
    """A patch of metadata carries the version that was read, too."""
    with cluster(knative.Knative()) as server:
        pods = RevisionPods(client(server))
        server.foreign_writes = 1
        pods.hold(STABLE, 9)
        calls = server.patches(POD_AUTOSCALER.plural)
        assert [call.code for call in calls] == [409, 200]
        assert all("resourceVersion" in call.body["metadata"] for call in calls)
        written = server.store.get(*knative.AUTOSCALER, "churn", STABLE)
        assert written is not None and written["metadata"]["annotations"][MIN_SCALE] == "9"
        server.settle(3)
        assert (pods.running(STABLE), pods.few(STABLE, 9)) == (9, None)
        assert pods.few(STABLE, 10) == f"revision {STABLE}: 9 of 10 pods are up"
        pods.release(STABLE)
        pods.release("gone")


@pytest.mark.parametrize(("minimum", "held"), [(4, "2"), (1, "1")])
def test_a_canary_with_a_share_has_a_spare_pod_where_stable_has_one(minimum: int, held: str) -> None:
    """Also where its autoscaler has fewer than the template asks for."""
    content = service("Knative")
    content["spec"]["predictor"]["minReplicas"] = minimum
    with cluster(knative.Knative(), content) as server:
        target = Knative(config(), client(server))
        target.deploy(SECOND)
        server.settle()
        canary = found(server)["status"]["components"]["predictor"]["latestCreatedRevision"]
        autoscaler = server.store.get(*knative.AUTOSCALER, "churn", canary)
        assert autoscaler is not None
        autoscaler["metadata"]["annotations"][MIN_SCALE] = "1"
        server.store.put(*knative.AUTOSCALER, autoscaler)
        server.settle()
        target.set_weight(1)
        raised_to = server.store.get(*knative.AUTOSCALER, "churn", canary)
        assert raised_to is not None and raised_to["metadata"]["annotations"][MIN_SCALE] == held
