"""The KServe SDK's own ModelServer, with a Model that asks Feast once a request."""

from typing import Any

from kserve import Model, ModelServer

from benchmarks.servers.recipe import Recipe, port


class Churn(Model):
    def __init__(self) -> None:
        super().__init__("churn")
        self.ready = self.load()

    def load(self) -> bool:
        self._recipe = Recipe()
        return True

    def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        return {"predictions": self._recipe.answer([one["user_id"] for one in payload["instances"]])}


if __name__ == "__main__":
    server = ModelServer(http_port=port(), enable_grpc=False, workers=1, enable_latency_logging=False)
    server.start([Churn()])
