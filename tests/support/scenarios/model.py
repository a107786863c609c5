"""A place of scenarios: an API server and a model of KServe in this process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kubernetes.client import CustomObjectsApi

from rollout.targets.kserve.cluster import INFERENCE_SERVICE
from rollout.targets.kserve.knative import Knative
from rollout.targets.kserve.marks import SOURCE, mark
from rollout.targets.kserve.standard import Standard
from rollout.targets.target import Candidate
from support.kube import knative, standard
from support.kube.api_server import ApiServer, Key, Object
from support.kube.cluster import FIRST, SECOND, THIRD, client, config, crd
from support.kube.overlays import inference_service
from support.scenarios.file import KNATIVE_PODS, Scenario
from support.scenarios.state import SERVICE, Names, knative_split, route_split

MISSING = Candidate("s3://models/churn/missing", "e" * 64, "eeeeeeeeeeee")
NAMES = Names({"first": FIRST, "second": SECOND, "third": THIRD, "missing": MISSING})
STARTS_IN = 40
"""Steps of the controllers: long enough that a canary is seen before it is ready."""
LOOKS = 200


class Model:
    """Implements Place."""

    names = NAMES

    def __init__(
        self, server: ApiServer, controller: knative.Knative | standard.Standard, scenario: Scenario
    ) -> None:
        self._server, self._controller, self._overlay = server, controller, scenario.overlay
        self._splits: list[dict[str, int]] = []
        self.cluster = client(server)
        kind: type[Knative | Standard] = Knative if scenario.mode == "knative" else Standard
        self.target = kind(config(), self.cluster)
        server.store.watchers.append(self._watch)

    def apply(self) -> None:
        given = inference_service(self._overlay)
        if self.target.name == "knative":
            given["spec"]["predictor"]["minReplicas"] = KNATIVE_PODS
        CustomObjectsApi(self.cluster._api.api_client).patch_namespaced_custom_object(
            INFERENCE_SERVICE.group,
            INFERENCE_SERVICE.version,
            "churn",
            INFERENCE_SERVICE.plural,
            SERVICE,
            given,
            field_manager="kubectl",
            _content_type="application/apply-patch+yaml",
        )

    def lose(self, model: str) -> None:
        assert isinstance(self._controller, standard.Standard)
        self._controller.deleted = {self.names.workload(model): 1}

    def regain(self, model: str) -> None:
        assert isinstance(self._controller, standard.Standard)
        del self._controller.deleted[self.names.workload(model)]

    def splits(self) -> list[dict[str, int]]:
        found, self._splits = self._splits, []
        return found

    def settle(self, same: Callable[[], bool]) -> None:
        for _ in range(LOOKS):
            if same():
                break
        self._server.settle()

    def _watch(self, key: Key, content: Object) -> None:
        if key[:2] == standard.ROUTE and key[3] == SERVICE:
            self._splits.append(route_split(content, self.names))
        elif key[:2] == standard.ISVC and self.target.name == "knative":
            models = {
                one["metadata"]["name"]: self.names.of_address(mark(one["metadata"], SOURCE))
                for one in self._server.store.of(*knative.REVISION)
            }
            status = ((content.get("status") or {}).get("components") or {}).get("predictor") or {}
            self._splits.append(knative_split(status, models))


@contextmanager
def model(scenario: Scenario) -> Iterator[Model]:
    """Nothing is applied yet."""

    def ready_after(uri: str) -> int | None:
        return None if uri == MISSING.archive else STARTS_IN

    controller = (
        knative.Knative(ready_after=ready_after)
        if scenario.mode == "knative"
        else standard.Standard(ready_after=ready_after)
    )
    schema = crd("inferenceservices")
    with ApiServer(
        controllers=[controller],
        schemas={"inferenceservices": schema} if schema else {},
        admission={"inferenceservices": (knative if scenario.mode == "knative" else standard).admit},
    ) as server:
        yield Model(server, controller, scenario)
