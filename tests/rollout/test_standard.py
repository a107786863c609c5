"""The target `standard` against an API server and a model of KServe's Standard mode with the Gateway API."""

import copy
from collections.abc import Iterator

import pytest
import yaml

from rollout.targets.kserve.cluster import ClusterError
from rollout.targets.kserve.http_routes import routed
from rollout.targets.kserve.sizes import pods_for, size
from rollout.targets.kserve.standard import Standard
from rollout.targets.kserve.standard_patches import predictor_name
from rollout.targets.target import Candidate, NotYet
from support.kube.api_server import ApiServer, Object
from support.kube.cluster import DOCUMENTED, FIRST, SECOND, THIRD, client, cluster, config, found, service
from support.kube.load import Load
from support.kube.standard import DEPLOYMENT, ROUTE
from support.kube.standard import Standard as Controller
from support.waits import within

NEW = predictor_name(SECOND)


@pytest.fixture
def controller() -> Controller:
    return Controller()


@pytest.fixture
def server(controller: Controller) -> Iterator[ApiServer]:
    with cluster(controller) as running:
        yield running


@pytest.fixture
def target(server: ApiServer) -> Standard:
    return Standard(config(), client(server))


def up(target: Standard, candidate: Candidate) -> None:
    target.deploy(candidate)
    for _ in range(50):
        if target.observe().ready:
            return
    pytest.fail(target.observe().detail)


def entries(server: ApiServer) -> list[tuple[int, int] | str]:
    """What each patch made of the canary: weight and pods."""
    seen: list[tuple[int, int] | str] = []
    for body in server.writes():
        canaries = body["spec"]["canary"]
        if "name" in body["spec"].get("predictor", {}):
            seen.append("promoted")
            continue
        seen.append(
            (canaries[0]["trafficPercent"], canaries[0]["predictor"]["minReplicas"]) if canaries else "none"
        )
    return seen


def pods(server: ApiServer, name: str) -> tuple[str, int, Object]:
    """Which pods there are: they are other ones as soon as any of it changes."""
    found = server.store.get(*DEPLOYMENT, "churn", name)
    assert found is not None
    return found["metadata"]["uid"], found["spec"]["replicas"], found["spec"]["template"]


def test_a_rollout_step_by_step(server: ApiServer, target: Standard) -> None:
    up(target, SECOND)
    for weight in (1, 10, 50, 100):
        target.set_weight(weight)
        state = target.observe()
        assert (state.weight, state.canary, state.stable) == (weight, SECOND.sha256, FIRST.sha256)
    target.promote(SECOND)

    # pods before the share that needs them, and all of stable's number before promotion
    assert entries(server) == [
        (0, 1), (0, 2), (1, 2), (10, 2), (10, 3), (50, 3), (50, 4), (100, 4), "promoted",
    ]  # fmt: skip
    state = target.observe()
    assert (state.weight, state.canary, state.stable) == (0, None, SECOND.sha256)
    target.tidy()
    assert found(server)["spec"]["predictor"]["minReplicas"] == 4
    assert not found(server)["spec"]["canary"]


def test_each_object_equals_the_documented_one(controller: Controller) -> None:
    if not DOCUMENTED.is_dir():
        pytest.skip("the documented manifests (shared/kserve-manifests) are not beside the repository")

    def documented(name: str) -> Object:
        content = yaml.safe_load((DOCUMENTED / f"standard-{name}.yaml").read_text(encoding="utf-8"))
        return _comparable(content["spec"], {"v2": NEW})

    first = yaml.safe_load((DOCUMENTED / "standard-1-stable.yaml").read_text(encoding="utf-8"))
    with cluster(controller, copy.deepcopy(first)) as server:
        target = Standard(config(), client(server))
        up(target, SECOND)
        target.set_weight(10)
        during = _comparable(found(server)["spec"])
        assert during["predictor"]["minReplicas"] == 6  # for stable's own four, beside the canary's two
        during["predictor"]["minReplicas"] = 4
        assert during["canary"][0]["predictor"]["minReplicas"] == 2  # with a spare one
        during["canary"][0]["predictor"]["minReplicas"] = 1
        assert during == documented("2-canary10")
        target.promote(SECOND)
        target.tidy()
        assert _comparable(found(server)["spec"]) == documented("3-promoted")
    with cluster(Controller(), copy.deepcopy(first)) as server:
        target = Standard(config(), client(server))
        up(target, SECOND)
        target.set_weight(10)
        target.rollback()
        assert _comparable(found(server)["spec"]) == documented("3-rollback")


def _comparable(spec: Object, names: dict[str, str] | None = None) -> Object:
    """Without our marks, and with the name that we give a version."""
    spec = copy.deepcopy(spec)
    for part in (spec["predictor"], *(entry["predictor"] for entry in spec["canary"])):
        part.pop("annotations", None)
        part["name"] = (names or {}).get(part["name"], part["name"])
    return spec


def test_customers_get_no_more_of_the_canary_than_was_set(target: Standard, controller: Controller) -> None:
    up(target, SECOND)
    for weight in (1, 10, 50):
        target.set_weight(weight)
    target.rollback()
    shares = [shares.get(SECOND.archive, 0) for shares in controller.traffic]
    assert shares == [0, 0, 1, 10, 50, 0, 0]
    assert controller.unserved == 0


def test_promotion_restarts_no_pod_and_loses_no_request(
    server: ApiServer, target: Standard, controller: Controller
) -> None:
    up(target, SECOND)
    target.set_weight(100)
    before = pods(server, f"churn-{NEW}-predictor")
    target.promote(SECOND)
    server.settle()
    assert pods(server, f"churn-{NEW}-predictor") == before
    assert controller.traffic[-1] == {SECOND.archive: 100, FIRST.archive: 0}
    assert pods(server, "churn-v1-predictor")[1] == 4, "for the way back, while it is watched"
    target.tidy()
    server.settle()
    assert pods(server, f"churn-{NEW}-predictor") == before
    assert server.store.get(*DEPLOYMENT, "churn", "churn-v1-predictor") is None
    assert controller.traffic[-1] == {SECOND.archive: 100}
    assert controller.unserved == 0


def test_while_the_former_pods_are_there_the_way_back_starts_none(controller: Controller) -> None:
    empty = service("Standard", marked=False)
    empty["spec"]["predictor"].pop("name")
    empty["spec"]["predictor"]["model"].pop("storageUri")
    with cluster(controller, empty) as server:
        target = Standard(config(), client(server))
        target.begin(FIRST)
        up(target, SECOND)
        target.set_weight(100)
        name = f"churn-{predictor_name(FIRST)}-predictor"
        before = pods(server, name)
        target.promote(SECOND)
        server.settle()
        assert pods(server, name) == before
        target.restore(FIRST)
        server.settle()
        assert pods(server, name)[0] == before[0]
        assert pods(server, name)[2] == before[2]
        assert {one["metadata"]["name"] for one in server.store.of(*DEPLOYMENT)} == {name}
        assert controller.traffic[-1] == {FIRST.archive: 100}
        assert target.observe().stable == FIRST.sha256
        assert controller.unserved == 0


@pytest.mark.parametrize("marked", [True, False])
def test_archives_that_serve_in_turns_are_told_apart(controller: Controller, marked: bool) -> None:
    """The former stable was once deployed beside what is stable again: it is no canary, and goes."""
    with cluster(controller, service("Standard", marked=marked)) as server:
        target = Standard(config(), client(server))
        for candidate, before in ((SECOND, FIRST), (FIRST, SECOND), (SECOND, FIRST)):
            up(target, candidate)
            assert target.observe().canary == candidate.sha256, "on trial, though it was stable before"
            target.promote(candidate)
            server.settle()
            state = target.observe()
            assert (state.stable, state.canary, state.weight) == (candidate.sha256, None, 0)
            if before == SECOND:
                target.restore(before)
                assert target.observe().stable == before.sha256, "the way back"
                up(target, candidate)
                target.promote(candidate)
            target.tidy()
            assert not found(server)["spec"]["canary"]
        assert controller.unserved == 0


def test_promotion_from_any_weight_is_through_100_percent(
    server: ApiServer, target: Standard, controller: Controller
) -> None:
    up(target, SECOND)
    target.set_weight(10)
    target.promote(SECOND)
    assert entries(server)[-3:] == [(10, 4), (100, 4), "promoted"]
    assert controller.unserved == 0


def test_a_rollback_moves_traffic_first_and_then_takes_the_pods(
    server: ApiServer, target: Standard, controller: Controller
) -> None:
    up(target, SECOND)
    target.set_weight(50)
    target.rollback()
    assert entries(server)[-2:] == [(0, 3), "none"]
    assert controller.traffic[-1] == {FIRST.archive: 100}
    assert controller.unserved == 0
    state = target.observe()
    assert (state.weight, state.canary, state.stable) == (0, None, FIRST.sha256)


def test_restore_brings_the_last_good_one_back_as_a_canary_would_come(
    server: ApiServer, target: Standard, controller: Controller
) -> None:
    up(target, SECOND)
    target.promote(SECOND)
    last_good = found(server)["spec"]["predictor"]["annotations"]["churn.rollout/previous"]
    assert yaml.safe_load(last_good) == {
        "archive": FIRST.archive,
        "sha256": FIRST.sha256,
        "version": FIRST.version,
    }
    target.restore(FIRST)
    assert controller.traffic[-1] == {FIRST.archive: 100}
    assert target.observe().stable == FIRST.sha256
    written = len(server.writes())
    target.restore(FIRST)
    assert len(server.writes()) == written
    assert controller.unserved == 0


def test_every_action_may_be_repeated(server: ApiServer, target: Standard) -> None:
    up(target, SECOND)
    target.set_weight(10)
    written = len(server.writes())
    target.deploy(SECOND)
    target.set_weight(10)
    assert len(server.writes()) == written
    target.promote(SECOND)
    written = len(server.writes())
    target.promote(SECOND)
    target.rollback()
    target.set_weight(0)
    assert len(server.writes()) == written


def test_a_release_that_routes_nothing_is_found_out_before_anything_is_believed() -> None:
    controller = Controller(release="0.20")
    with cluster(controller) as server:
        target = Standard(config(timeout_s=0.3), client(server))
        up(target, SECOND)
        with pytest.raises(ClusterError, match=r"KServe 0\.20 starts canaries and routes nothing"):
            target.set_weight(10)
        echo = found(server)["status"]["canaryStatuses"][0]
        assert (echo["ready"], echo["trafficPercent"]) == (True, 10)  # its own status
        assert target.observe().weight == 0
        target.rollback()
        assert controller.traffic == [{FIRST.archive: 100}]


def test_a_canary_at_no_weight_still_has_a_pod(server: ApiServer, target: Standard) -> None:
    """Without minReplicas KServe would give a canary of 0 % no pod at all: never ready."""
    up(target, SECOND)
    assert pods(server, f"churn-{NEW}-predictor")[1] == 1
    assert target.observe().weight == 0


def test_pods_that_never_come_up_get_nothing() -> None:
    controller = Controller(ready_after=lambda uri: None if uri == SECOND.archive else 2)
    with cluster(controller) as server:
        target = Standard(config(timeout_s=0.3), client(server))
        target.deploy(SECOND)
        server.settle()
        state = target.observe()
        assert (state.ready, state.weight) == (False, 0)
        assert f"Deployment churn-{NEW}-predictor: 0 of 1 pods available" in state.detail
        assert "MinimumReplicasUnavailable" in state.detail
        with pytest.raises(ClusterError, match="the canary gets nothing"):
            target.set_weight(10)
        target.rollback()
        assert target.observe().canary is None
        assert controller.traffic == [{FIRST.archive: 100}]


def test_a_canary_whose_pods_die_has_no_traffic_and_differs_from_one_taken_back(
    server: ApiServer, target: Standard, controller: Controller
) -> None:
    up(target, SECOND)
    target.set_weight(25)
    controller.ready_after = lambda uri: None if uri == SECOND.archive else 2
    server.settle()
    state = target.observe()
    assert (state.weight, state.intended, state.ready) == (0, 25, False)
    assert controller.traffic[-1] == {FIRST.archive: 100}
    target.rollback()
    assert target.observe().canary is None


def test_no_routes_no_rollout() -> None:
    with cluster(Controller(gateway_api=False)) as server:
        with pytest.raises(ClusterError, match=r"HTTPRoute churn/churn: is not there; .*enableGatewayApi"):
            Standard(config(), client(server)).deploy(SECOND)
        assert server.writes() == []


def test_a_second_canary_is_left_to_a_person(server: ApiServer, target: Standard) -> None:
    up(target, SECOND)
    content = copy.deepcopy(found(server))
    other = copy.deepcopy(content["spec"]["canary"][0])
    other["predictor"]["name"] = "experiment"
    content["spec"]["canary"].append(other)
    server.store.put("serving.kserve.io", "inferenceservices", content)
    with pytest.raises(ClusterError, match=r"spec\.canary: 2 entries"):
        target.set_weight(10)


def test_what_is_refused_before_anything_is_sent(server: ApiServer, target: Standard) -> None:
    with pytest.raises(ClusterError, match="a cluster cannot load from there"):
        target.deploy(Candidate("/var/churn.mar", "d" * 64, "dddddddddddd"))
    with pytest.raises(ClusterError, match="is what churn serves already"):
        target.deploy(FIRST)
    # other bytes under an address that serves: KServe would never load them
    with pytest.raises(ClusterError, match="is what churn serves already"):
        target.deploy(Candidate(FIRST.archive, "d" * 64, "dddddddddddd"))
    with pytest.raises(ClusterError, match="there is no canary to give 5 % to"):
        target.set_weight(5)
    assert server.writes() == []


def test_a_service_of_the_other_mode_is_refused() -> None:
    content = service("Standard")
    content["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] = "Knative"
    with cluster(Controller(), content) as server, pytest.raises(ClusterError, match="set it to knative"):
        Standard(config(), client(server)).observe()


def test_mirroring_is_not_supported_and_is_reported_as_off(target: Standard) -> None:
    up(target, SECOND)
    target.set_weight(0, mirror=True)
    state = target.observe()
    assert (target.can_mirror, state.mirror, state.weight, state.ready) == (False, False, 0, True)


def test_one_route_that_lags_behind_is_the_weight_that_counts(server: ApiServer, target: Standard) -> None:
    up(target, SECOND)
    target.set_weight(10)
    lagging = copy.deepcopy(server.store.get(*ROUTE, "churn", "churn-predictor"))
    assert lagging is not None
    lagging["spec"]["rules"][0]["backendRefs"][1]["weight"] = 60
    lagging["spec"]["rules"][0]["backendRefs"][0]["weight"] = 40
    server.store.put(*ROUTE, lagging)
    server._controllers = ()
    assert target.observe().weight == 60


@pytest.mark.parametrize(
    ("backends", "shares"),
    [
        ([{"name": "a"}], {"a": 100}),
        ([{"name": "a", "weight": 9}, {"name": "b", "weight": 1}], {"a": 90, "b": 10}),
        ([{"name": "a"}, {"name": "b"}], {"a": 50, "b": 50}),
        ([{"name": "a", "weight": 0}], {"a": 0}),
    ],
)
def test_weights_are_read_as_the_gateway_api_means_them(
    backends: list[Object], shares: dict[str, float]
) -> None:
    meta = {"name": "churn", "generation": 1}
    assert routed({"metadata": meta, "spec": {"rules": [{"backendRefs": backends}]}}).shares == shares


def sized(
    percent: int, pods: int, at: int = 0, before: int = 8, most: int | None = 20, minimum: int = 2
) -> tuple[int, int]:
    """Of a canary with `at` percent that came when `before` pods ran, where `pods` of stable run now."""
    content = service("Standard")
    content["spec"]["predictor"] |= {"minReplicas": minimum, "maxReplicas": most}
    annotations = {"churn.rollout/replicas": str(before), "churn.rollout/min-replicas": str(minimum)}
    entry = {"trafficPercent": at, "predictor": {"annotations": annotations}}
    found_size = size(content, entry, percent, pods)
    return found_size.canary, found_size.minimum


@pytest.mark.parametrize(
    ("percent", "canary", "minimum"),
    [(0, 1, 9), (1, 2, 10), (25, 2, 10), (26, 3, 11), (50, 6, 14), (100, 8, 16)],
)
def test_a_share_has_the_pods_that_ran_for_it_and_stable_retains_its_own(
    percent: int, canary: int, minimum: int
) -> None:
    assert sized(percent, pods=8) == (canary, minimum)


@pytest.mark.parametrize("pods", [1, 2, 3, 6, 17])
def test_a_pod_of_the_canary_has_not_much_more_load_than_one_of_stable(pods: int) -> None:
    for percent in range(1, 100):
        canary = pods_for(percent, pods, least=1)
        assert canary <= pods
        stable_load = (100 - percent) / pods
        assert percent / canary <= 1.5 * stable_load + 1e-9 or canary == pods


@pytest.mark.parametrize(
    ("minimum", "most", "size_at_10"),
    [
        (2, 4, (2, 4)),
        (2, None, (2, 4)),
        (2, 3, (1, 3)),  # no room: stable would have one
        (1, 10, (1, 3)),  # stable's only pod may be deleted too
    ],
)
def test_a_canary_with_a_share_has_a_spare_pod_where_stable_has_one(
    minimum: int, most: int | None, size_at_10: tuple[int, int]
) -> None:
    assert sized(10, pods=2, before=2, most=most, minimum=minimum) == size_at_10


def test_a_size_follows_the_load_and_not_an_autoscaler_that_shrinks_late() -> None:
    assert sized(50, pods=8, at=25) == (6, 14)  # as many as before, for less: it has not shrunk yet
    assert sized(100, pods=9, at=50) == (18, 20)  # more than before for half of it: twice the load
    assert sized(100, pods=8, most=10) == (8, 10)  # what the platform allows, and stable has what is left
    assert sized(100, pods=3, before=3, most=None) == (3, 6)  # no autoscaler
    assert sized(100, pods=0, at=100) == (8, 16)


@pytest.mark.parametrize("weight", [5, 50, 100])
def test_a_stable_that_an_autoscaler_has_grown_is_replaced_without_overload(weight: int) -> None:
    """8 pods by load where minReplicas is 2."""
    load = Load(units=5.6)
    content = service("Standard")
    content["spec"]["predictor"] |= {"minReplicas": 2, "maxReplicas": 20}
    controller = Controller(load=load)
    with cluster(controller, content) as server:
        server.settle(60)
        assert pods(server, "churn-v1-predictor")[1] == 8
        target = Standard(config(), client(server))
        up(target, SECOND)
        for share in (1, 25, 50, 100):
            target.set_weight(share)
            server.settle(100)  # long enough for the autoscaler to take stable's pods away
            if share >= weight:
                break
        if weight == 100:
            target.promote(SECOND)
            server.settle(100)
            target.tidy()
            assert found(server)["spec"]["predictor"]["minReplicas"] == 2
            assert pods(server, f"churn-{NEW}-predictor")[1] == 8
        else:
            target.rollback()
            assert found(server)["spec"]["predictor"]["minReplicas"] == 2
        server.settle(100)
        assert load.overloaded == []
        assert controller.unserved == 0


def test_all_customers_go_back_at_once_to_pods_that_are_still_there() -> None:
    load = Load(units=5.6)
    content = service("Standard")
    content["spec"]["predictor"] |= {"minReplicas": 2, "maxReplicas": 20}
    with cluster(Controller(load=load), content) as server:
        server.settle(60)
        target = Standard(config(), client(server))
        up(target, SECOND)
        target.set_weight(100)
        server.settle(200)
        target.rollback()
        assert load.overloaded == []


def test_a_pod_of_a_canary_may_be_deleted(
    server: ApiServer, target: Standard, controller: Controller
) -> None:
    """KServe takes the share away only after the gateway has found no pod for it."""
    up(target, SECOND)
    target.set_weight(1)
    controller.deleted = {f"churn-{NEW}-predictor": 1}
    server.settle(20)
    state = target.observe()
    assert (controller.unserved, state.weight, state.ready) == (0, 1, True)
    controller.deleted = {}
    target.set_weight(10)
    assert target.observe().weight == 10


def test_pods_that_take_long_to_start_are_waited_for_and_are_no_failure() -> None:
    controller = Controller(load=Load(units=2.8), starts_in=10**6)
    with cluster(controller) as server:
        target = Standard(config(timeout_s=1), client(server))
        up(target, SECOND)
        with pytest.raises(NotYet, match=r"pods of the canary: not within 1 s: .* 1 of 3 pods available"):
            target.set_weight(50)
        assert target.observe().weight == 0
        controller.starts_in = 1
        target.set_weight(50)
        assert target.observe().weight == 50


def test_the_second_pod_that_waits_for_a_node_has_the_time_of_a_node_and_says_so() -> None:
    """The first is ready: without this, it would have the time in which a pod has to start."""
    controller = Controller(load=Load(units=1.4), starts_in=10**6)
    with cluster(controller) as server:
        target = Standard(config(timeout_s=0.2), client(server))
        up(target, SECOND)
        server.store.put("", "pods", without_a_node(f"churn-{NEW}-predictor"))
        said: list[str] = []

        def waits_for_the_second() -> bool:
            with pytest.raises(NotYet) as raised:
                target.set_weight(1)
            said.append(str(raised.value))
            return "1 of 2 pods available" in said[-1] and said[-1].endswith("-2: Unschedulable: 0/1")

        within(20, waits_for_the_second, lambda: said[-1])
        state = target.observe()
        assert (state.ready, state.weight, state.needs_node) == (True, 0, True)


def without_a_node(deployment: str) -> Object:
    """A pod of it."""
    no_node = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1"}
    labels = {"app": f"isvc.{deployment}"}
    return {
        "metadata": {"name": f"{deployment}-2", "namespace": "churn", "labels": labels},
        "spec": {},
        "status": {"conditions": [no_node]},
    }


def test_a_pod_of_stable_that_waits_for_a_node_has_the_time_of_a_node_too(
    server: ApiServer, controller: Controller
) -> None:
    """KServe changes no share meanwhile, and the canary is good."""
    target = Standard(config(timeout_s=0.2), client(server))
    up(target, SECOND)
    target.set_weight(1)
    assert not target.observe().needs_node
    stable = server.store.of(*DEPLOYMENT)[0]["metadata"]["name"]
    assert NEW not in stable
    controller.deleted = {stable: 2}  # of 4, of which one may be missing
    pod = without_a_node(stable)
    server.store.put("", "pods", pod)
    server.settle()
    with pytest.raises(NotYet, match=r"pods of stable: .* are missing; .*-2: Unschedulable: 0/1"):
        target.set_weight(10)
    state = target.observe()
    assert (state.ready, state.weight, state.needs_node, state.detail) == (True, 1, True, "")
    controller.deleted = {}
    server.store.delete("", "pods", "churn", pod["metadata"]["name"])
    target.set_weight(10)
    state = target.observe()
    assert (state.weight, state.needs_node) == (10, False)


def test_two_archives_of_one_model_are_two_predictors() -> None:
    other = Candidate("s3://models/churn/v2-repacked", SECOND.sha256, SECOND.version)
    assert predictor_name(other) != predictor_name(SECOND)
    assert len(f"churn-{predictor_name(THIRD)}-predictor") <= 63


def test_the_first_model_of_an_empty_service_and_its_declared_minimum(controller: Controller) -> None:
    empty = service("Standard", marked=False)
    empty["metadata"]["annotations"]["churn.rollout/min-replicas"] = "3"
    for field in ("name", "minReplicas"):
        empty["spec"]["predictor"].pop(field)
    empty["spec"]["predictor"]["model"].pop("storageUri")
    with cluster(controller, empty) as server:
        target = Standard(config(), client(server))
        assert target.serving() is None
        target.begin(FIRST)
        target.begin(FIRST)
        assert target.serving() == FIRST
        assert found(server)["spec"]["predictor"]["minReplicas"] == 3
        with pytest.raises(ClusterError, match=r"serves .* already"):
            target.begin(SECOND)


def test_a_first_model_that_does_not_start_can_be_replaced_and_its_pods_say_why(
    controller: Controller,
) -> None:
    controller.ready_after = lambda uri: None if uri == FIRST.archive else 1
    empty = service("Standard", marked=False)
    for field in ("name",):
        empty["spec"]["predictor"].pop(field)
    empty["spec"]["predictor"]["model"].pop("storageUri")
    with cluster(controller, empty) as server:
        name = f"churn-{predictor_name(FIRST)}-predictor"
        crashed = {"terminated": {"reason": "Error", "exitCode": 1, "message": "no such key: s3://models"}}
        container = {"name": "storage-initializer", "state": crashed}
        pod = {
            "metadata": {"name": f"{name}-1", "namespace": "churn", "labels": {"app": f"isvc.{name}"}},
            "spec": {},
            "status": {"initContainerStatuses": [container]},
        }
        server.store.put("", "pods", pod)
        target = Standard(config(timeout_s=0.1), client(server))
        with pytest.raises(NotYet, match=r"Init:storage-initializer: Error .exit code 1.: no such key"):
            target.begin(FIRST)
        assert not target.observe().serves
        target.begin(SECOND)
        assert target.serving() == SECOND


def test_between_rollouts_the_declared_minimum_is_set_and_autoscalers_without_pods_go(
    controller: Controller,
) -> None:
    declared = service("Standard")
    declared["metadata"]["annotations"]["churn.rollout/min-replicas"] = "2"
    with cluster(controller, declared) as server:
        target = Standard(config(), client(server))
        up(target, SECOND)
        target.set_weight(100)
        target.promote(SECOND)
        server.settle()
        target.tidy()
        assert found(server)["spec"]["predictor"]["minReplicas"] == 2
        left = {one["metadata"]["name"] for one in server.store.of("autoscaling", "horizontalpodautoscalers")}
        assert left == {f"churn-{NEW}-predictor"}
