"""The limit: the same TorchServe and settings, and a handler that reads nothing and says one thing."""

from collections.abc import Mapping, Sequence
from typing import Any

ANSWER = b'{"user_id": 1, "churn_probability": 0.5, "prediction": "Low Risk", "status": "ok"}'


class NoopHandler:
    def initialize(self, context: Any) -> None:
        """Nothing to load."""

    def handle(self, rows: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        for position in range(len(rows)):
            context.set_response_content_type(position, "application/json")
        return [ANSWER] * len(rows)
