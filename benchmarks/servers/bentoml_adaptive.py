"""BentoML with adaptive batching: a client sends a list of one, and lists that come together are one call.

Its documentation also shows a service in front that takes single requests and passes them on; with BentoML
1.4.39 and 64 clients that hop cost most of the speed and answered a third of the requests with a 500 (its
own connections were closed under it), so requests go to the batching service directly.

Two workers, one a core, since processes of Python use one each
(https://docs.bentoml.com/en/latest/build-with-bentoml/parallelize-requests.html); batches as
https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html has them.
"""

from typing import Any

import bentoml

from benchmarks.servers.recipe import Recipe


@bentoml.service(workers=2, traffic={"timeout": 60, "max_concurrency": 1024})
class Churn:
    def __init__(self) -> None:
        self._recipe = Recipe()

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=10_000)
    def predict(self, user_ids: list[int]) -> list[dict[str, Any]]:
        return self._recipe.answer(user_ids)
