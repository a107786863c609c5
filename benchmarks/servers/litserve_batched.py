"""LitServe with batching: up to 64 requests are one read and one call of the program.

As the docstring of LitServer advises (https://lightning.ai/docs/litserve/api-reference/litserver): "for
CPU, set [workers_per_device] to the number of cores", `fast_queue` above 100 requests a second, and as many
API servers as workers, its default.
"""

import os
from typing import Any

import litserve


class Churn(litserve.LitAPI):
    def setup(self, device: Any) -> None:
        # here and not above: the processes that only speak HTTP need not import Feast and torch
        from benchmarks.servers.recipe import Recipe

        self._recipe = Recipe()

    def decode_request(self, request: dict[str, Any]) -> Any:
        return request["user_id"]

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, user_ids: Any) -> list[dict[str, Any]]:
        return self._recipe.answer(user_ids)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: Any) -> Any:
        return output


if __name__ == "__main__":
    api = Churn(max_batch_size=64, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=2, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
