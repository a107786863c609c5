"""The KServe SDK's own ModelServer with two workers, plain or with a batcher.

`workers`: "Number of uvicorn workers" (https://kserve.github.io/website/docs/reference/python-runtime-sdk),
two for two cores. Its logs are off, as the others' are: `--log_config_file` without the access log,
KSERVE_LOGLEVEL, `--enable_latency_logging false`.

KServe documents a batcher (https://kserve.github.io/website/docs/model-serving/predictive-inference/batcher),
which runs in a sidecar: a batch is sent when it has `maxBatchSize` instances (32) or its first one has waited
`maxLatency` milliseconds. With BATCHER=1 that rule is applied in each server process, with 1 ms, the
shortest: without the sidecar's hop, which favours KServe.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from kserve import Model, ModelServer

if TYPE_CHECKING:
    from benchmarks.servers.recipe import Recipe

MAX_BATCH_SIZE, MAX_LATENCY_S = 32, 0.001
Answer = Callable[[list[Any]], list[dict[str, Any]]]


class Churn(Model):
    """The process that starts the workers loads nothing. Each worker unpickles it and loads in a thread: the
    process that watches it kills a worker that does not answer within 5 s, and imports may take longer.
    """

    def __init__(self, loading: "Future[Recipe] | None" = None) -> None:
        super().__init__("churn")
        self.loading = loading
        self.ready = True

    def __reduce__(self) -> Any:
        return in_worker, (type(self),)

    def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        return {"predictions": self.answer([one["user_id"] for one in payload["instances"]])}

    def answer(self, user_ids: list[Any]) -> list[dict[str, Any]]:
        assert self.loading is not None
        return self.loading.result().answer(user_ids)


class Batched(Churn):
    def __init__(self, loading: "Future[Recipe] | None" = None) -> None:
        super().__init__(loading)
        self.batcher = Batcher(self.answer)

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        return {"predictions": await self.batcher.answer([one["user_id"] for one in payload["instances"]])}


class Batcher:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._waiting: list[tuple[list[Any], asyncio.Future[list[Any]]]] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    async def answer(self, user_ids: list[Any]) -> list[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Any]] = loop.create_future()
        self._waiting.append((user_ids, future))
        self._size += len(user_ids)
        if self._size >= MAX_BATCH_SIZE:
            self._predict()
        elif self._timer is None:
            self._timer = loop.call_later(MAX_LATENCY_S, self._predict)
        return await future

    def _predict(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._waiting, self._size, self._timer = self._waiting, [], 0, None
        try:
            answers = iter(self._answer([user_id for user_ids, _ in waiting for user_id in user_ids]))
        except Exception as error:
            for _, future in waiting:
                future.set_exception(error)
            return
        for user_ids, future in waiting:
            if not future.cancelled():
                future.set_result([next(answers) for _ in user_ids])


def in_worker(kind: type[Churn]) -> Churn:
    return kind(ThreadPoolExecutor(1).submit(recipe))


def recipe() -> "Recipe":
    """Imports PyTorch only here: what comes before counts towards the 5 s."""
    from benchmarks.servers.recipe import Recipe

    return Recipe()


if __name__ == "__main__":
    model = Batched() if os.environ.get("BATCHER") else Churn()
    ModelServer().start([model])  # its settings are arguments of the command, as in a container
