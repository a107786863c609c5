"""Customers are served by a real TorchServe whose clock shows the simulated time."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import ReplayError
from data.sample import sample_user_ids
from pipelines.context import Stages
from pipelines.live import maker, masked
from replay.served import Customers, ServedModel
from serving.client import predict

AT_ONCE = 500
"""Customers of one request."""
SAMPLED = 1_000_000
"""Most rows of the source in which identifiers are looked up."""


class LiveServer:
    """Answers customers of a moment over HTTP, from the online store; the worker writes the prediction log.

    `present` reads the machine's clock, to which the worker's clock has an offset.
    """

    def __init__(self, settings: Stages, present: Callable[[], datetime]) -> None:
        self._settings, self._present = settings, present

    def answer(self, model: ServedModel, customers: Customers) -> NDArray[np.float64]:
        """Churn probabilities, one a customer. Raises ServingError where the server does not answer, and
        ReplayError for a customer without a score."""
        settings, files = self._settings, self._settings.files
        identifiers = self._identifiers(customers)
        start = maker(settings, files, self._present(), customers.moment)
        answers: list[dict[str, Any]] = []
        with start(model.candidate.path, "server") as running:
            for place in range(0, len(identifiers), AT_ONCE):
                some = identifiers[place : place + AT_ONCE]
                key = running.tokens.inference
                answers += predict(running.inference, settings.serving.model_name, some, key, timeout=120.0)
        wrong = [answer for answer in answers if "churn_probability" not in answer]
        if wrong:
            raise ReplayError(
                f"{customers.moment:%Y-%m-%d}: {len(wrong)} of {len(answers)} customers got no score, first:"
                f" {wrong[0].get('error')}"
            )
        return np.array([answer["churn_probability"] for answer in answers], dtype=np.float64)

    def _identifiers(self, customers: Customers) -> list[int | str]:
        """The source's identifiers, in the order of the customers."""
        sampled = sample_user_ids(self._settings.data, SAMPLED)
        known = dict(zip(masked(self._settings, sampled), sampled, strict=True))
        missing = sum(user not in known for user in customers.users)
        if missing:
            raise ReplayError(
                f"{missing} customers are not in the first {SAMPLED:,} rows of the source; replay with --fast"
            )
        return [known[user] for user in customers.users]
