"""The target `knative` against an API server and a model of KServe's Knative mode."""

import copy
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import yaml

from handlers.identity import PROBE_HEADER, PROBE_ID, THROUGH_GATEWAY
from rollout.targets.kserve.cluster import ClusterError
from rollout.targets.kserve.knative import Knative
from rollout.targets.target import Candidate, NotYet
from support.kube.api_server import ApiServer, Object
from support.kube.cluster import DOCUMENTED, FIRST, SECOND, THIRD, client, cluster, config, found, service
from support.kube.knative import Knative as Controller
from support.kube.load import Load


@pytest.fixture
def controller() -> Controller:
    return Controller()


@pytest.fixture
def server(controller: Controller) -> Iterator[ApiServer]:
    with cluster(controller) as running:
        yield running


@pytest.fixture
def target(server: ApiServer) -> Knative:
    return Knative(config(), client(server))


def up(target: Knative, candidate: Candidate) -> None:
    """As the controller does it: deployed, and looked at until it is ready."""
    target.deploy(candidate)
    for _ in range(50):
        if target.observe().ready:
            return
    pytest.fail(target.observe().detail)


def percents(server: ApiServer) -> list[Any]:
    return [body["spec"]["predictor"].get("canaryTrafficPercent", "absent") for body in server.writes()]


def test_a_rollout_sends_one_patch_a_step_and_nothing_else(server: ApiServer, target: Knative) -> None:
    up(target, SECOND)
    for weight in (1, 10, 50, 100):
        target.set_weight(weight)
        assert (target.observe().weight, target.observe().canary) == (weight, SECOND.sha256)
    target.promote(SECOND)

    assert percents(server) == [0, 1, 10, 50, 100, None]
    first, *later = server.writes()
    assert first["spec"]["predictor"]["model"] == {"storageUri": SECOND.archive}
    assert all(set(body["spec"]["predictor"]) == {"canaryTrafficPercent"} for body in later)
    state = target.observe()
    assert (state.weight, state.canary, state.stable) == (0, None, SECOND.sha256)


def test_customers_get_no_more_of_the_canary_than_was_set(
    server: ApiServer, target: Knative, controller: Controller
) -> None:
    up(target, SECOND)
    for weight in (1, 10, 50):
        target.set_weight(weight)
    target.rollback()

    assert [shares.get(SECOND.archive, 0) for shares in controller.traffic][:6] == [0, 0, 1, 10, 50, 0]
    assert all(sum(shares.values()) == 100 for shares in controller.traffic)


def test_each_object_equals_the_documented_one(controller: Controller) -> None:
    if not DOCUMENTED.is_dir():
        pytest.skip("the documented manifests (shared/kserve-manifests) are not beside the repository")

    def spec(name: str) -> Object:
        content = yaml.safe_load((DOCUMENTED / f"knative-{name}.yaml").read_text(encoding="utf-8"))
        return dict(content["spec"]["predictor"])

    def standing(server: ApiServer) -> Object:
        return {key: part for key, part in found(server)["spec"]["predictor"].items() if key != "annotations"}

    first = yaml.safe_load((DOCUMENTED / "knative-1-stable.yaml").read_text(encoding="utf-8"))
    with cluster(controller, copy.deepcopy(first)) as server:
        target = Knative(config(), client(server))
        up(target, SECOND)
        target.set_weight(10)
        assert standing(server) == spec("2-canary10")
        target.promote(SECOND)
        assert standing(server) == spec("3-promoted")
    with cluster(Controller(), copy.deepcopy(first)) as server:
        target = Knative(config(), client(server))
        up(target, SECOND)
        target.set_weight(10)
        target.rollback()
        moved = [call.sent for call in server.patches() if call.sent][-2]
        sent = {key: part for key, part in moved["spec"]["predictor"].items() if key != "annotations"}
        assert sent == spec("3-rollback")
        assert standing(server) == spec("1-stable") | {"canaryTrafficPercent": 0}


def test_a_rollback_moves_traffic_first_and_then_takes_the_model_out(
    server: ApiServer, target: Knative, controller: Controller
) -> None:
    up(target, SECOND)
    target.set_weight(25)
    target.rollback()

    away, out = server.writes()[-2:]
    assert away == {"spec": {"predictor": {"canaryTrafficPercent": 0}}}
    assert out["spec"]["predictor"]["model"] == {"storageUri": FIRST.archive}
    state = target.observe()
    assert (state.weight, state.canary, state.stable) == (0, None, FIRST.sha256)
    # removing the percentage now promotes what is stable already
    content = copy.deepcopy(found(server))
    del content["spec"]["predictor"]["canaryTrafficPercent"]
    server.store.put("serving.kserve.io", "inferenceservices", content)
    server.settle()
    assert controller.traffic[-1] == {FIRST.archive: 100}


def test_a_rollback_from_all_customers(target: Knative, controller: Controller) -> None:
    up(target, SECOND)
    target.set_weight(100)
    assert controller.traffic[-1] == {SECOND.archive: 100}
    target.rollback()
    assert {k: v for k, v in controller.traffic[-1].items() if v} == {FIRST.archive: 100}
    assert target.observe().stable == FIRST.sha256


def test_a_controller_that_died_within_a_rollback_is_followed_by_one_that_ends_it(
    server: ApiServer, target: Knative
) -> None:
    up(target, SECOND)
    target.set_weight(25)
    target.set_weight(0)  # all that the first one did
    Knative(config(), client(server)).rollback()
    assert target.observe().canary is None
    assert found(server)["spec"]["predictor"]["model"]["storageUri"] == FIRST.archive


def test_every_action_may_be_repeated(server: ApiServer, target: Knative) -> None:
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
    assert target.observe().stable == SECOND.sha256


def test_a_revision_that_never_is_ready_gets_nothing_however_healthy_the_status_looks() -> None:
    controller = Controller(ready_after=lambda uri: None if uri == SECOND.archive else 2)
    with cluster(controller) as server:
        target = Knative(config(), client(server))
        target.deploy(SECOND)
        server.settle()
        traffic = found(server)["status"]["components"]["predictor"]["traffic"]
        assert traffic[0]["latestRevision"] is True  # the trap: it means the old one

        state = target.observe()
        assert (state.weight, state.ready, state.canary) == (0, False, SECOND.sha256)
        assert "churn-predictor-00002 is not ready: Deploying: container is not ready" in state.detail
        with pytest.raises(ClusterError, match="the canary gets nothing: revision churn-predictor-00002"):
            target.set_weight(10)
        assert percents(server) == [0]

        target.rollback()
        assert [shares for shares in controller.traffic if shares.get(SECOND.archive)] == []
        assert target.observe().canary is None


def test_restore_brings_the_previous_revision_back_without_a_new_pod(
    server: ApiServer, target: Knative, controller: Controller
) -> None:
    up(target, SECOND)
    target.promote(SECOND)
    controller.ready_after = lambda uri: None  # nothing new would come up now
    target.restore(FIRST)
    assert {k: v for k, v in controller.traffic[-1].items() if v} == {FIRST.archive: 100}
    assert (target.observe().stable, target.observe().canary) == (FIRST.sha256, None)
    target.restore(FIRST)
    assert target.observe().stable == FIRST.sha256


def pods(server: ApiServer, number: int) -> int:
    """Of a revision, by its number."""
    server.settle()
    found = server.store.get("serving.knative.dev", "revisions", "churn", f"churn-predictor-{number:05d}")
    assert found is not None
    return int(found["status"]["actualReplicas"])


def test_stable_keeps_its_pods_until_the_watch_is_over(server: ApiServer, target: Knative) -> None:
    up(target, SECOND)
    target.set_weight(100)
    assert (pods(server, 1), pods(server, 2)) == (4, 4)
    target.promote(SECOND)
    assert pods(server, 1) == 4
    target.tidy()
    assert (pods(server, 1), pods(server, 2)) == (0, 4)
    assert server.store.of("serving.knative.dev", "routes") == []


def test_after_the_watch_no_request_goes_to_a_model_before_its_pods_are_up(
    server: ApiServer, target: Knative, controller: Controller
) -> None:
    """Knative would keep the requests while the pods start, for longer than their clients wait."""
    up(target, SECOND)
    target.promote(SECOND)
    target.tidy()
    controller.load = Load(units=1)  # with it pods take their time
    controller.starts_in = 10_000
    assert pods(server, 1) == 0
    with pytest.raises(NotYet, match=r"pods of the former model: .* 0 of 4 pods are up"):
        target.restore(FIRST)
    assert {k: v for k, v in controller.traffic[-1].items() if v} == {SECOND.archive: 100}
    controller.starts_in = 1
    target.restore(FIRST)
    assert {k: v for k, v in controller.traffic[-1].items() if v} == {FIRST.archive: 100}
    assert (target.observe().stable, target.observe().canary) == (FIRST.sha256, None)
    assert server.store.of("serving.knative.dev", "routes") == []


def test_a_promoted_model_without_pods_is_not_waited_for(
    server: ApiServer, target: Knative, controller: Controller
) -> None:
    up(target, SECOND)
    target.promote(SECOND)
    target.tidy()
    controller.flapping = {SECOND.archive}
    target.restore(FIRST)
    assert {k: v for k, v in controller.traffic[-1].items() if v} == {FIRST.archive: 100}


def test_restore_of_an_older_one_is_a_rollout_without_judgement(
    target: Knative, controller: Controller
) -> None:
    for candidate in (SECOND, THIRD):
        up(target, candidate)
        target.promote(candidate)
    target.restore(FIRST)
    assert controller.traffic[-1] == {FIRST.archive: 100}
    assert target.observe().stable == FIRST.sha256
    assert all(sum(shares.values()) == 100 for shares in controller.traffic)


def test_the_next_rollout_after_a_rollback_has_the_same_previous_one(
    target: Knative, controller: Controller
) -> None:
    up(target, SECOND)
    target.set_weight(5)
    target.rollback()
    up(target, THIRD)
    target.set_weight(5)
    assert controller.traffic[-1] == {FIRST.archive: 95, THIRD.archive: 5}
    assert target.observe().stable == FIRST.sha256
    target.rollback()
    assert target.observe().stable == FIRST.sha256


def test_a_stable_model_that_no_rollout_put_there() -> None:
    controller = Controller()
    with cluster(controller, service("Knative", marked=False)) as server:
        target = Knative(config(), client(server))
        assert target.observe().stable is None
        up(target, SECOND)
        target.set_weight(10)
        assert (target.observe().weight, target.observe().stable) == (10, None)
        target.rollback()
        assert target.observe().canary is None
        predictor = found(server)["spec"]["predictor"]
        assert (predictor["model"]["storageUri"], predictor["annotations"]) == (FIRST.archive, {})


def test_a_step_back_of_kserve_s_own_is_found_out_and_mended(target: Knative, controller: Controller) -> None:
    """After one completed rollout there is an older revision that KServe may mistake for the stable one."""
    up(target, SECOND)
    target.promote(SECOND)
    controller.routes_first = True
    with pytest.raises(
        ClusterError, match="went back to aaaaaaaaaaaa when it took the canary, from bbbbbbbbbbbb"
    ):
        target.deploy(THIRD)
    assert target.observe().stable == FIRST.sha256
    target.rollback()
    assert target.observe().stable == SECOND.sha256
    assert {uri: share for uri, share in controller.traffic[-1].items() if share} == {SECOND.archive: 100}
    assert all(not shares.get(THIRD.archive) for shares in controller.traffic)


def test_mirroring_is_not_supported_and_reported_as_off(server: ApiServer, target: Knative) -> None:
    up(target, SECOND)
    target.set_weight(0, mirror=True)
    state = target.observe()
    assert (target.can_mirror, state.mirror, state.weight, state.ready) == (False, False, 0, True)


def test_a_canary_gets_a_prediction_request_where_it_can_be_reached(
    server: ApiServer, controller: Controller
) -> None:
    requests: list[tuple[str | None, str, Any]] = []
    answers = [503, 200]

    class Ingress(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.headers[PROBE_HEADER] == THROUGH_GATEWAY, "or it counts like a customer's"
            requests.append((self.headers["Host"], self.path, body))
            self.send_response(answers[min(len(requests), 2) - 1])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    ingress = HTTPServer(("127.0.0.1", 0), Ingress)
    thread = threading.Thread(target=ingress.serve_forever, args=(0.02,))
    thread.start()
    try:
        reached = config().model_copy(update={"gateway_url": f"http://127.0.0.1:{ingress.server_port}"})
        target = Knative(reached, client(server))
        controller.ready_after = lambda uri: None
        target.deploy(SECOND)
        controller.ready_after = lambda uri: 1
        server.settle()
        assert not requests  # not before its own probes succeed
        first, second = target.observe(), target.observe()
        sent = len(requests)
        assert target.observe().ready and len(requests) == sent, "it has answered once"
    finally:
        ingress.shutdown()
        ingress.server_close()
        thread.join()
    assert first.detail == "latest-churn-predictor.churn.example answers 503 to a question for a prediction"
    assert (first.ready, second.ready) == (False, True)
    assert requests[0] == (
        "latest-churn-predictor.churn.example",
        "/v1/models/churn:predict",
        {"instances": [{"user_id": PROBE_ID}]},
    )
    state = Knative(reached, client(server)).observe()
    assert not state.ready and "does not answer for latest-churn-predictor" in state.detail


def test_notes_are_never_left_where_they_would_start_pods(server: ApiServer, target: Knative) -> None:
    up(target, SECOND)
    target.set_weight(10)
    target.promote(SECOND)
    patches = [call.body for call in server.patches()]
    assert patches
    assert all(set(body["metadata"]) == {"resourceVersion"} for body in patches)
    assert len(server.store.of("serving.knative.dev", "revisions")) == 2


def never_rolled_out(content: Object) -> None:
    content["spec"]["predictor"]["model"]["storageUri"] = "s3://models/churn/never"


def other_mode(content: Object) -> None:
    content["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] = "Standard"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (never_rolled_out, "no revision has been rolled out yet"),
        (other_mode, "runs in Standard mode, and rollout.target is knative; set it to standard"),
    ],
)
def test_a_service_that_cannot_be_rolled_out_is_refused(
    change: Callable[[Object], None], message: str
) -> None:
    content = service("Knative")
    change(content)
    controller = Controller(ready_after=lambda uri: None if uri.endswith("never") else 2)
    with cluster(controller, content) as server:
        with pytest.raises(ClusterError, match=message):
            Knative(config(), client(server)).deploy(SECOND)
        assert server.writes() == []


def test_an_archive_of_this_machine_is_refused(server: ApiServer, target: Knative) -> None:
    with pytest.raises(ClusterError, match="a cluster cannot load from there"):
        target.deploy(Candidate("/var/model-store/churn.mar", "d" * 64, "dddddddddddd"))
    with pytest.raises(ClusterError, match="is what churn serves already"):
        target.deploy(FIRST)
    assert server.writes() == []


def test_a_canary_that_was_exchanged_does_not_get_the_weight_of_the_other(
    server: ApiServer, target: Knative
) -> None:
    up(target, SECOND)
    target.set_weight(10)
    # between our look and our patch
    look = target.observe

    def exchanged() -> Any:
        state = look()
        content = copy.deepcopy(found(server))
        content["spec"]["predictor"]["model"]["storageUri"] = "s3://models/churn/other"
        marks = {"churn.rollout/archive": "s3://models/churn/other", "churn.rollout/sha256": "e" * 64}
        content["spec"]["predictor"]["annotations"] |= marks
        server.store.put("serving.kserve.io", "inferenceservices", content)
        return state

    target.observe = exchanged  # type: ignore[method-assign]
    with pytest.raises(ClusterError, match="holds eeeeeeeeeeee where bbbbbbbbbbbb was judged"):
        target.set_weight(50)
    assert percents(server) == [0, 10]


def test_a_service_that_is_not_there_is_named_with_the_remedy(server: ApiServer) -> None:
    missing = config().model_copy(update={"name": "absent"})
    with pytest.raises(ClusterError, match=r"InferenceService churn/absent: is not there; apply an overlay"):
        Knative(missing, client(server)).observe()
