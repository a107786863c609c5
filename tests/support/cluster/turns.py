"""Two models of one service that are promoted in turn."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from support.cluster.service import Requests, Service
from support.waits import within


class Turns:
    """The first one serves."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._models = [service.first, service.churn.package(seed=2)]
        assert service.apply() == 0
        service.churn.deploy(self._models[0], "the first model")
        within(120, lambda: len(service.ask()) > 0)

    def deploy(self, reason: str) -> str:
        """Start a rollout of the model that does not serve; what served before."""
        before = self.service.served
        if before.rpartition("/")[2].startswith(self._models[0].version):
            self._models.reverse()
        self.service.churn.deploy(self._models[0], reason)
        return before

    def promote(
        self,
        per_second: float,
        meanwhile: Callable[[], None] = lambda: None,
        during: AbstractContextManager[object] | None = None,
    ) -> Requests:
        """A rollout of the other model under load; `meanwhile` is called when it has begun."""
        with Requests(self.service, per_second) as requests, during or nullcontext():
            before = self.deploy("a drill")
            meanwhile()
            ended = self.service.ended(900)
        assert ended["phase"] == "promoted", ended
        assert self.service.served != before
        return requests
