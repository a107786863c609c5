"""What an API server can do to a rollout, in both modes: be silent, refuse, be written to by others."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
from kubernetes.client import ApiClient, Configuration, CustomObjectsApi

from core.errors import ServingError
from rollout.targets.kserve.cluster import (
    CONFLICTS,
    INFERENCE_SERVICE,
    Cluster,
    ClusterError,
    ClusterUnreachable,
    connect,
)
from rollout.targets.kserve.knative import Knative
from rollout.targets.kserve.standard import Standard
from support.kube import knative, standard
from support.kube.api_server import ApiServer, unknown
from support.kube.cluster import FIRST, SECOND, client, cluster, config, crd, found


@dataclass
class Setting:
    server: ApiServer
    controller: knative.Knative | standard.Standard
    target: Knative | Standard

    def up(self) -> None:
        self.target.deploy(SECOND)
        self.ready()

    def ready(self) -> None:
        deadline = time.monotonic() + 10
        while not self.target.observe().ready:
            assert time.monotonic() < deadline, self.target.observe().detail

    @property
    def highest(self) -> int:
        """The largest share that customers ever had of the canary."""
        return max(shares.get(SECOND.archive, 0) for shares in self.controller.traffic)


MODES: dict[str, tuple[type[knative.Knative | standard.Standard], type[Knative | Standard]]] = {
    "knative": (knative.Knative, Knative),
    "standard": (standard.Standard, Standard),
}


@pytest.fixture(params=MODES)
def setting(request: pytest.FixtureRequest) -> Iterator[Setting]:
    model, target = MODES[request.param]
    controller = model()
    with cluster(controller) as server:
        yield Setting(server, controller, target(config(timeout_s=10), client(server)))


def whole_rollout(setting: Setting) -> None:
    setting.up()
    for weight in (1, 5, 25, 50, 100):
        setting.target.set_weight(weight)
    setting.target.promote(SECOND)
    assert setting.target.observe().stable == SECOND.sha256


def test_another_client_writes_before_every_write_of_ours(setting: Setting) -> None:
    setting.server.conflict_first = True
    whole_rollout(setting)
    setting.target.restore(FIRST)
    assert setting.target.observe().stable == FIRST.sha256
    patches = [call.code for call in setting.server.calls if call.verb == "patch"]
    assert patches.count(409) >= patches.count(200) > 0


def test_a_client_that_never_stops_writing_is_reported(setting: Setting) -> None:
    setting.up()
    setting.server.foreign_writes = 10_000
    with pytest.raises(
        ClusterUnreachable, match=f"somebody else wrote between read and write {CONFLICTS} times"
    ):
        setting.target.set_weight(10)
    assert setting.highest == 0
    setting.server.foreign_writes = 0
    setting.target.set_weight(10)
    assert setting.target.observe().weight == 10

    # the way to safety is open all the same
    setting.server.foreign_writes = CONFLICTS // 2
    setting.target.rollback()
    assert setting.target.observe().canary is None


def test_the_way_back_does_not_wait_for_the_others(setting: Setting) -> None:
    setting.up()
    setting.target.set_weight(10)
    setting.server.foreign_writes = 10_000
    taken = len(setting.server.writes())
    with suppress(ClusterUnreachable):  # from the tidying after it, which may wait
        setting.target.rollback()
    assert setting.controller.traffic[-1].get(SECOND.archive, 0) == 0
    assert len(setting.server.writes()) > taken


def test_every_patch_names_the_version_that_was_read(setting: Setting) -> None:
    whole_rollout(setting)
    patches = [call for call in setting.server.calls if call.verb == "patch"]
    assert all(call.body["metadata"]["resourceVersion"] for call in patches)


@pytest.mark.parametrize("way", ["silent", "gone"])
def test_no_api_server_is_one_line_and_nothing_changes(setting: Setting, way: str) -> None:
    setting.up()
    setting.target.set_weight(5)
    calls: list[Callable[[], object]] = [
        setting.target.observe,
        lambda: setting.target.deploy(SECOND),
        lambda: setting.target.set_weight(25),
        lambda: setting.target.promote(SECOND),
        setting.target.rollback,
        lambda: setting.target.restore(FIRST),
    ]

    def all_fail() -> None:
        for call in calls:
            with pytest.raises(ClusterUnreachable, match="the API server does not answer") as raised:
                call()
            assert "\n" not in str(raised.value)
            assert isinstance(raised.value, ServingError)

    if way == "silent":
        setting.server.down = True
        all_fail()
        setting.server.down = False
    else:
        with setting.server.gone():
            all_fail()
    assert setting.target.observe().weight == 5
    setting.target.set_weight(25)
    assert setting.target.observe().weight == 25


def test_an_api_server_that_accepts_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{Cluster.__module__}.REQUEST_TIMEOUT_S", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        configuration = Configuration(host=f"http://127.0.0.1:{silent.getsockname()[1]}")
        configuration.retries = False
        target = Standard(config(), Cluster(ApiClient(configuration), "churn"))
        with pytest.raises(ClusterUnreachable, match="the API server does not answer"):
            target.observe()


def test_an_api_server_that_stops_while_traffic_is_moving_is_waited_for(setting: Setting) -> None:
    """The minute of an outage, shortened: the wait continues."""
    setting.up()
    server, patched = setting.server, threading.Event()
    take = server._patch

    def then_go(*arguments: object) -> object:
        answer = take(*arguments)  # type: ignore[arg-type]
        patched.set()
        return answer

    server._patch = then_go  # type: ignore[assignment, method-assign]

    def outage() -> None:
        patched.wait(10)
        server.down = True
        time.sleep(1.0)
        server.down = False

    thread = threading.Thread(target=outage)
    thread.start()
    try:
        setting.target.set_weight(10)
    except ClusterUnreachable:  # the answer to the patch was lost: the controller repeats it
        thread.join()
        setting.target.set_weight(10)
    finally:
        thread.join()
    assert setting.target.observe().weight == 10
    assert setting.highest == 10


def test_changes_whose_answer_is_lost_are_repeated_and_made_once(setting: Setting) -> None:
    def again(action: Callable[[], object]) -> None:
        for lost in range(3):
            setting.server.lose_answers = 1 if lost < 2 else 0
            try:
                action()
                return
            except ClusterUnreachable:
                continue

    again(lambda: setting.target.deploy(SECOND))
    setting.server.lose_answers = 0
    setting.ready()
    for weight in (10, 100):
        again(lambda weight=weight: setting.target.set_weight(weight))  # type: ignore[misc]
    again(lambda: setting.target.promote(SECOND))
    setting.server.lose_answers = 0
    assert setting.target.observe().stable == SECOND.sha256
    written = [str(body) for body in setting.server.writes()]
    assert len(written) == len(set(written))


def test_readiness_that_flaps_is_seen_and_never_promoted_over(setting: Setting) -> None:
    setting.up()
    setting.target.set_weight(10)
    setting.controller.flapping.add(SECOND.archive)
    looks = []
    for number in range(10):
        setting.server.settle(number % 2)  # whatever number of steps a look takes
        looks.append(setting.target.observe())
    assert {look.ready for look in looks} == {True, False}
    assert all(look.canary == SECOND.sha256 and look.weight in (0, 10) for look in looks)
    assert all(look.detail for look in looks if not look.ready)
    assert setting.highest == 10
    impatient = type(setting.target)(config(timeout_s=1), client(setting.server))
    impatient.rollback()
    assert setting.target.observe().canary is None
    setting.server.settle()
    assert setting.controller.traffic[-1].get(SECOND.archive, 0) == 0


def test_an_account_without_the_role_gets_its_name(setting: Setting) -> None:
    setting.server.rules = []
    with pytest.raises(
        ClusterError, match="may not get inferenceservices in churn; bind the Role churn-rollout"
    ):
        setting.target.observe()
    rule = {"apiGroups": ["*"], "resources": [], "verbs": []}
    setting.server.rules = [
        rule | {"apiGroups": [group], "resources": [plural], "verbs": ["get"]}
        for group, plural in (
            ("serving.kserve.io", "inferenceservices"),
            ("serving.knative.dev", "revisions"),
            ("apps", "deployments"),
            ("gateway.networking.k8s.io", "httproutes"),
        )
    ]
    with pytest.raises(ClusterError, match="may not patch inferenceservices"):
        setting.target.deploy(SECOND)


def test_the_message_of_the_webhook_is_shown(setting: Setting) -> None:
    with pytest.raises(ClusterError, match=r"refuses the change: .*model\.name must not be set") as raised:
        client(setting.server).change(
            INFERENCE_SERVICE,
            "churn",
            lambda service: {"spec": {"predictor": {"model": {"name": "v2"}}}},
        )
    assert not isinstance(raised.value, ClusterUnreachable)


def test_the_message_of_the_schema_is_shown(setting: Setting) -> None:
    if crd("inferenceservices") is None:
        pytest.skip("KServe's CRDs are not here: set CHURN_KSERVE_CRDS to their folder")
    api = client(setting.server)
    with pytest.raises(ClusterError, match=r"refuses the change: .*minReplicas"):
        api.change(INFERENCE_SERVICE, "churn", lambda s: {"spec": {"predictor": {"minReplicas": "four"}}})
    with pytest.raises(ClusterError, match=r'unknown field "spec\.predictor\.canaryPercent"'):
        api.change(INFERENCE_SERVICE, "churn", lambda s: {"spec": {"predictor": {"canaryPercent": 4}}})
    # a contradiction: the full CRD requires the model's name, and the webhook refuses any
    nameless = {
        "trafficPercent": 1,
        "predictor": {"name": "v2", "model": {"modelFormat": {"name": "pytorch"}}},
    }
    with pytest.raises(ClusterError, match=r"'name' is a required property"):
        api.change(INFERENCE_SERVICE, "churn", lambda s: {"spec": {"canary": [nameless]}})


def test_every_object_that_a_rollout_makes_fits_the_schema_strictly(setting: Setting) -> None:
    schema = crd("inferenceservices")
    if schema is None:
        pytest.skip("KServe's CRDs are not here: set CHURN_KSERVE_CRDS to their folder")
    whole_rollout(setting)
    setting.target.restore(FIRST)
    sent = [call.sent for call in setting.server.patches() if call.code == 200]
    assert len(sent) > 8
    assert all(content is not None and list(unknown(schema, content)) == [] for content in sent)
    assert not [
        call for call in setting.server.calls if call.verb == "patch" and call.code in (400, 403, 422)
    ]


def test_a_server_in_trouble_is_no_refusal(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 429 and 5xx the state of the change is unknown: the controller waits, as for a server that is
    silent."""
    from kubernetes.client.exceptions import ApiException

    def busy(*_: object, **__: object) -> None:
        raise ApiException(status=503, reason="etcdserver: leader changed")

    monkeypatch.setattr(CustomObjectsApi, "get_namespaced_custom_object", busy)
    with pytest.raises(ClusterUnreachable, match="answered 503: etcdserver: leader changed"):
        setting.target.observe()


def test_without_kubeconfig_and_pod_there_is_no_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    nowhere = str(tmp_path_factory.mktemp("empty") / "kubeconfig")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", nowhere)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ClusterError, match=r"rollout\.kserve\.context: no cluster to speak to"):
        connect(None, "churn")


def test_a_wait_ends_with_the_last_complaint(setting: Setting) -> None:
    now = [0.0]
    api = client(setting.server)
    waiting = Cluster(
        api._api.api_client, "churn", sleep=lambda s: now.__setitem__(0, now[0] + s), clock=lambda: now[0]
    )
    with pytest.raises(ClusterError, match=r"pods: not within 60 s: none yet"):
        waiting.wait(lambda: "none yet", 60, "pods")
    assert 60 <= now[0] < 64


def test_the_first_model_is_there_before_any_of_it(setting: Setting) -> None:
    assert found(setting.server)["spec"]["predictor"]["model"]["storageUri"] == FIRST.archive
    assert setting.controller.traffic == [{FIRST.archive: 100}]
