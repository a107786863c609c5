"""The part of the Kubernetes API that a rollout needs: read and change objects as plain dicts.

`kserve`'s own client is not used: it passes model objects that newer kubernetes clients refuse, cannot clear
a field, and drops resourceVersion. Only verbs that the Role in kserve/ allows are used.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kubernetes.client import ApiClient, Configuration, CoreV1Api, CustomObjectsApi
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from urllib3.exceptions import HTTPError

from core.errors import ServingError
from rollout.targets.target import NotYet

Object = dict[str, Any]
Patch = dict[str, Any]
"""A JSON merge patch: null removes a key, a list replaces the whole list."""

MANAGER = "churn-rollout"
"""The field manager of our changes: an apply that would revert them gets a conflict."""
REQUEST_TIMEOUT_S = (3.0, 10.0)
PODS_AT_A_TIME_S = 2.0
"""How long one tick waits for pods; the controller can answer an abort between two ticks."""
CONFLICTS = 10
"""How often another client may write between our read and our write before that is an error."""


@dataclass(frozen=True)
class Kind:
    name: str
    group: str
    version: str
    plural: str
    remedy: str
    """What to do where the object does not exist."""


INFERENCE_SERVICE = Kind(
    "InferenceService",
    "serving.kserve.io",
    "v1beta1",
    "inferenceservices",
    "apply an overlay of kserve/ first",
)
REVISION = Kind("Revision", "serving.knative.dev", "v1", "revisions", "it was collected as garbage")
POD_AUTOSCALER = Kind(
    "PodAutoscaler",
    "autoscaling.internal.knative.dev",
    "v1alpha1",
    "podautoscalers",
    "Knative makes one for each Revision",
)
KNATIVE_ROUTE = Kind("Route", "serving.knative.dev", "v1", "routes", "a rollout makes it")
DEPLOYMENT = Kind("Deployment", "apps", "v1", "deployments", "look at the events of the InferenceService")
AUTOSCALER = Kind(
    "HorizontalPodAutoscaler", "autoscaling", "v2", "horizontalpodautoscalers", "KServe makes it"
)
HTTP_ROUTE = Kind(
    "HTTPRoute",
    "gateway.networking.k8s.io",
    "v1",
    "httproutes",
    "KServe makes it where its ConfigMap says enableGatewayApi: true and the service is not cluster-local",
)


class ClusterError(ServingError):
    """The cluster refused a change, or did not complete it in time."""


class ClusterWaiting(ClusterError, NotYet):
    """A change is under way and takes longer than one tick."""


class ClusterUnreachable(ClusterError):
    """There is no answer, or one that leaves open whether the change was made: it has to be repeated."""


class Cluster:
    """One namespace. Tests replace `sleep` and `clock` (monotonic seconds)."""

    def __init__(
        self,
        client: ApiClient,
        namespace: str,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.namespace = namespace
        self._api, self._core = CustomObjectsApi(client), CoreV1Api(client)
        self._sleep = sleep
        self._clock = clock

    def get(self, kind: Kind, name: str) -> Object:
        """Raises ClusterError where it does not exist."""
        found = self.find(kind, name)
        if found is None:
            raise ClusterError(f"{kind.name} {self.namespace}/{name}: is not there; {kind.remedy}")
        return found

    def find(self, kind: Kind, name: str) -> Object | None:
        try:
            return self._ask(self._api.get_namespaced_custom_object, kind, name)
        except ApiException as error:
            if error.status == 404:
                return None
            raise self._explained(error, kind, name, "get") from None

    def all(self, kind: Kind) -> list[Object]:
        """All of the namespace. Raises ClusterError."""
        try:
            answer = self._ask(self._api.list_namespaced_custom_object, kind)
        except ApiException as error:
            raise self._explained(error, kind, "", "list") from None
        found: list[Object] = answer.get("items") or []
        return found

    def apply(self, kind: Kind, name: str, content: Object) -> None:
        """Create an object that is ours alone, or make it so again, by server-side apply. Raises
        ClusterError."""
        meta = {"name": name, "namespace": self.namespace, **content["metadata"]}
        whole = {**content, "apiVersion": f"{kind.group}/{kind.version}", "kind": kind.name, "metadata": meta}
        try:
            self._ask(
                self._api.patch_namespaced_custom_object,
                kind,
                name,
                whole,
                field_manager=MANAGER,
                force=True,
                field_validation="Strict",
                _content_type="application/apply-patch+yaml",
            )
        except ApiException as error:
            raise self._explained(error, kind, name, "patch") from None

    def delete(self, kind: Kind, name: str) -> None:
        """Raises ClusterError, but not where it is gone already."""
        try:
            self._ask(self._api.delete_namespaced_custom_object, kind, name)
        except ApiException as error:
            if error.status != 404:
                raise self._explained(error, kind, name, "delete") from None

    def pods(self, labels: dict[str, str]) -> list[Object]:
        """The pods with these labels; none where this account may not list pods, since they only explain."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        return self._listed(self._core.list_namespaced_pod, label_selector=selector)

    def warnings(self) -> list[Object]:
        """Events of type Warning; none where this account may not list events."""
        return self._listed(self._core.list_namespaced_event, field_selector="type=Warning")

    def _listed(self, verb: Callable[..., Any], **selectors: str) -> list[Object]:
        try:
            # as plain JSON: the client's own types refuse objects that lack a field that they require
            answer = verb(
                self.namespace, _preload_content=False, _request_timeout=REQUEST_TIMEOUT_S, **selectors
            )
            found: list[Object] = json.loads(answer.data).get("items") or []
        except (ApiException, HTTPError, OSError, ValueError):
            return []
        return found

    def change(
        self, kind: Kind, name: str, decide: Callable[[Object], Patch | None], urgent: bool = False
    ) -> Object:
        """Apply the patch that `decide` makes of the object; None: no change is needed. Returns the object
        after it.

        The patch contains the resourceVersion that was read. Where another client has written since, the
        object is read and decided anew, so that a decision only ever changes the object for which it was
        made. `urgent` is for changes that lead to safety: after some conflicts they are made without that
        lock. A canary whose pods start and stop makes KServe write its status all the time, which must not
        prevent its removal.
        """
        for attempt in range(CONFLICTS):
            if attempt:
                self._sleep(min(0.05 * 2**attempt, 2.0))
            found = self.get(kind, name)
            patch = decide(found)
            if patch is None:
                return found
            lock = {"resourceVersion": found["metadata"]["resourceVersion"]}
            if urgent and attempt >= CONFLICTS // 2:
                lock = {}
            locked = {**patch, "metadata": {**patch.get("metadata", {}), **lock}}
            try:
                return self._ask(
                    self._api.patch_namespaced_custom_object,
                    kind,
                    name,
                    locked,
                    field_manager=MANAGER,
                    # a field that the API does not have is an error of ours, and must not be dropped silently
                    field_validation="Strict",
                    _content_type="application/merge-patch+json",
                )
            except ApiException as error:
                if error.status != 409:
                    raise self._explained(error, kind, name, "patch") from None
        raise ClusterUnreachable(
            f"{kind.name} {self.namespace}/{name}: somebody else wrote between read and write"
            f" {CONFLICTS} times running; find out which controller or pipeline fights over it"
        )

    def wait(
        self, reached: Callable[[], str | None], timeout_s: float, what: str, under_way: bool = False
    ) -> None:
        """Call `reached` until it returns None. While the API server does not answer, it is called again.

        Raises ClusterError with its last complaint after `timeout_s`; with `under_way` ClusterWaiting, which
        is no failure.
        """
        deadline = self._clock() + timeout_s
        pause = 0.1
        while True:
            try:
                complaint = reached()
            except ClusterUnreachable as error:
                complaint = str(error)
            if complaint is None:
                return
            if self._clock() >= deadline:
                kind = ClusterWaiting if under_way else ClusterError
                raise kind(f"{what}: not within {timeout_s:g} s: {complaint}")
            self._sleep(pause)
            pause = min(pause * 1.5, 2.0)

    def _ask(self, verb: Callable[..., Any], kind: Kind, *body: Any, **options: Any) -> Object:
        try:
            answer: Object = verb(
                kind.group,
                kind.version,
                self.namespace,
                kind.plural,
                *body,
                _request_timeout=REQUEST_TIMEOUT_S,
                **options,
            )
        except (HTTPError, OSError) as error:
            raise ClusterUnreachable(f"the API server does not answer: {_line(str(error))}") from None
        return answer

    def _explained(self, error: ApiException, kind: Kind, name: str, verb: str) -> ClusterError:
        text = _message(error)
        where = f"{kind.name} {self.namespace}/{name}"
        if error.status == 404:
            return ClusterError(f"{where}: is not there; {kind.remedy}")
        if error.status == 401:
            return ClusterError(f"{where}: the API server does not know us ({text}); renew the credentials")
        if error.status == 403 and "denied the request" not in text:
            return ClusterError(
                f"{where}: this account may not {verb} {kind.plural} in {self.namespace}; bind the Role"
                " churn-rollout of kserve/"
            )
        if error.status in (400, 403, 422):
            return ClusterError(f"{where}: the cluster refuses the change: {text}")
        return ClusterUnreachable(f"{where}: the API server answered {error.status}: {text}")


def connect(context: str | None, namespace: str) -> Cluster:
    """Raises ClusterError as `client_of`."""
    return Cluster(client_of(context), namespace)


def client_of(context: str | None) -> ApiClient:
    """By kubeconfig (`context`, or its current one), else with the pod's own account.

    Raises ClusterError where there is neither.
    """
    configuration = Configuration()
    configuration.retries = False  # callers decide about retries
    try:
        load_kube_config(context=context, client_configuration=configuration)
    except ConfigException as no_file:
        try:
            load_incluster_config(client_configuration=configuration)
        except ConfigException:
            raise ClusterError(
                f"rollout.kserve.context: no cluster to speak to: {_line(str(no_file))}; make a kubeconfig or"
                " run in a pod of the cluster"
            ) from None
    return ApiClient(configuration)


def _message(error: ApiException) -> str:
    try:
        message = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        message = error.reason
    return _line(str(message))


def _line(text: str) -> str:
    return " ".join(text.split())[:500]
