"""The model of a cluster with real pods: Envoy and TorchServe carry out the split of the modelled KServe.

The targets speak to the API server of tests/support/kube; a pod of the candidate there is a TorchServe here,
it is ready there when Envoy's question for a prediction is answered here, and clients get the cluster's
weights.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from core.errors import ServingError
from rollout.targets.kserve.knative import Knative
from rollout.targets.kserve.standard import Standard
from rollout.targets.kserve.standard_patches import predictor_name
from rollout.targets.target import Candidate
from support.kube import knative, standard
from support.kube.api_server import ApiServer
from support.kube.cluster import FIRST, SECOND, client, cluster, config

from support.drills.rig import VERSION, Rig  # isort: skip

ON_TRIAL = replace(SECOND, version=VERSION)
"""The name of the archive of `altered` in the cluster."""


@dataclass
class Pods:
    """Runs the servers as the model of the cluster requires."""

    rig: Rig
    server: ApiServer
    model: knative.Knative | standard.Standard
    candidate: Candidate
    """The archive at SECOND's address."""
    up: bool = False

    def ready_after(self, uri: str) -> int | None:
        return 0 if self.up or uri != SECOND.archive else None

    def follow(self) -> None:
        with self.server.store.lock:
            share = self.model.traffic[-1].get(SECOND.archive, 0)
            wanted = share > 0 or self._wanted()
        state = self.rig.target.observe()
        self.up = state.ready and state.canary is not None
        if wanted and state.canary is None:
            self.rig.target.deploy(self.candidate)
        elif not wanted and state.canary is not None:
            self.rig.target.rollback()
        elif self.up and state.weight != share:
            self.rig.target.set_weight(share)

    @property
    def deployments(self) -> dict[str, str]:
        """Slot -> the Deployment whose pods it has; the canary's as it will be called once it is there."""
        if isinstance(self.model, knative.Knative):
            first, second = (f"churn-predictor-{number:05d}-deployment" for number in (1, 2))
        else:
            first, second = "churn-v1-predictor", f"churn-{predictor_name(ON_TRIAL)}-predictor"
        return {"stable": first, "canary": second}

    def made(self) -> set[str]:
        """Deployments that the cluster has (Knative makes one for each Revision)."""
        with self.server.store.lock:
            revisions = self.server.store.of(*knative.REVISION)
            deployments = self.server.store.of(*standard.DEPLOYMENT)
        names = {f"{one['metadata']['name']}-deployment" for one in revisions}
        return names | {one["metadata"]["name"] for one in deployments}

    def _wanted(self) -> bool:
        (service,) = self.server.store.of("serving.kserve.io", "inferenceservices")
        parts = [service["spec"]["predictor"]]
        parts += [entry["predictor"] for entry in service["spec"].get("canary") or []]
        return any(part["model"]["storageUri"] == SECOND.archive for part in parts)


@contextmanager
def on_cluster(
    rig: Rig, mode: str, candidate: Candidate, beside: Callable[[Pods], None] = lambda pods: None
) -> Iterator[tuple[Rig, Pods]]:
    """`beside` is called again and again while the pods run."""
    model: knative.Knative | standard.Standard = (
        knative.Knative() if mode == "knative" else standard.Standard()
    )
    with cluster(model) as server:
        pods = Pods(rig, server, model, candidate)
        model.ready_after = pods.ready_after
        over = threading.Event()

        def run() -> None:
            while not over.wait(0.05):
                with suppress(ServingError):  # a pod that is not ready now: a cluster tries again too
                    pods.follow()
                beside(pods)

        thread = threading.Thread(target=run)
        thread.start()
        kind: type[Knative | Standard] = Knative if mode == "knative" else Standard
        target = kind(config(timeout_s=10), client(server))
        try:
            yield replace(rig, target=target, stable=FIRST), pods
        finally:
            over.set()
            thread.join()
            rig.target.rollback()
