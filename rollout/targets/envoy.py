"""One machine: stable and canary are two TorchServe instances behind the Envoy of `churn serve`.

Weights, endpoints and health are read from Envoy. The archive of an endpoint is read from the supervisor,
which started the process at that port.
"""

import hashlib

from core.errors import ChurnError, ServingError
from rollout.targets.target import Candidate, TargetState
from serving.supervisor import Supervisor
from serving.torchserve.server import TorchServe


class EnvoyTarget:
    """Used in the process of the supervisor, whose companion thread runs the controller."""

    name = "envoy"
    can_mirror = True

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor, self._gateway = supervisor, supervisor.gateway

    def observe(self) -> TargetState:
        split = self._gateway.split()
        stable, canary = self._supervisor.model, self._supervisor.canary
        detail = self._why_not_ready()
        return TargetState(
            weight=split.weight,
            mirror=split.mirror,
            canary=None if canary.server is None else _loaded(canary.server),
            stable=_loaded(stable) if _serves(stable, self._gateway.hosts("stable")) else None,
            ready=not detail,
            detail=detail,
        )

    def serving(self) -> Candidate | None:
        stable = self._supervisor.model
        sha256 = _loaded(stable)
        return None if sha256 is None else Candidate(str(stable.archive), sha256, stable.load().version)

    def deploy(self, candidate: Candidate) -> None:
        """Returns at once. A candidate that runs or starts is left as it is; one that failed to start is
        started again. Raises ServingError when the archive is not the one that was judged.
        """
        self._refuse_another(candidate)
        if self._deployed() != candidate.sha256:
            self._gateway.set_canary_weight(0)
        self._supervisor.canary.deploy(candidate.path)

    def set_weight(self, percent: int, mirror: bool = False) -> None:
        """Raises ServingError where a canary that is not ready would get requests."""
        if (percent or mirror) and (reason := self._why_not_ready()):
            raise ServingError(f"the canary gets no traffic: {reason}")
        self._gateway.set_canary_weight(percent, mirror)
        split = self._gateway.split()
        if (split.weight, split.mirror) != (percent, mirror):
            raise ServingError(f"the gateway splits {split} where {percent} % was set")

    def promote(self, candidate: Candidate) -> None:
        """A new TorchServe with the candidate replaces stable without a lost request; the canary serves
        meanwhile and is then stopped. The canary's process is not used further, because its logs and metrics
        are labelled `canary` and would be counted for the next one.
        """
        self._refuse_another(candidate)
        if _loaded(self._supervisor.model) != candidate.sha256 or not self._supervisor.model.alive:
            self._supervisor.replace(candidate.path)
        self._take_back()

    def rollback(self) -> None:
        self._take_back()

    def restore(self, candidate: Candidate) -> None:
        self._gateway.set_canary_weight(0)
        self.promote(candidate)

    def _take_back(self) -> None:
        """Traffic first, then the process."""
        self._gateway.set_canary_weight(0)
        self._supervisor.canary.stop()

    def _deployed(self) -> str | None:
        server = self._supervisor.canary.server
        return None if server is None else _loaded(server)

    def _why_not_ready(self) -> str:
        """Empty: the canary has answered Envoy's last health check with a prediction."""
        canary = self._supervisor.canary
        if reason := canary.state:
            return reason
        if canary.server is None or not _serves(canary.server, self._gateway.hosts("canary")):
            return "Envoy's questions for a prediction are not answered"
        return ""

    def _refuse_another(self, candidate: Candidate) -> None:
        try:
            found = hashlib.sha256(candidate.path.read_bytes()).hexdigest()
        except OSError as error:
            raise ServingError(f"{candidate.archive}: {error.strerror}") from None
        if found != candidate.sha256:
            raise ServingError(
                f"{candidate.archive}: its sha256 {found[:12]} is not the {candidate.sha256[:12]} that was"
                " judged; deploy it again"
            )


def _serves(server: TorchServe, hosts: dict[int, str]) -> bool:
    return server.alive and hosts.get(server.upstream.inference_port) == "HEALTHY"


def _loaded(server: TorchServe) -> str | None:
    """sha256 of the bytes that it serves, whatever the file contains by now; None: they must not be
    served."""
    try:
        return server.load().sha256
    except ChurnError:
        return None
