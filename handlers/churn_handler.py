"""The TorchServe entry: `churn_handler.py` at the root of the archive, beside the folder `handlers/`.

Everything it does is done by `handlers.predictor`, so that another server can host the same bundle.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from handlers.bundle import BundleError
from handlers.predictor import Predictor, load

if TYPE_CHECKING:
    from ts.context import Context


class ChurnHandler:
    """TorchServe calls `initialize` once a worker and `handle` once a batch."""

    predictor: Predictor

    def initialize(self, context: "Context") -> None:
        torch.set_num_threads(1)  # workers share the cores; small products are slower on several threads
        try:
            self.predictor = load(
                Path(context.system_properties["model_dir"]), os.environ, str(context.model_name)
            )
        except BundleError as error:
            logging.getLogger("churn.handler").error("REFUSED %s", error)
            raise
        # TorchServe's worker logs two lines a batch at this level
        logging.getLogger().setLevel(logging.WARNING)

    def handle(self, rows: Sequence[Mapping[str, Any]], context: "Context") -> list[bytes]:
        """One JSON body a row, each with its own HTTP status."""
        answers = self.predictor.answer(rows)
        for position, answer in enumerate(answers):
            phrase = HTTPStatus(answer.http_status).phrase
            context.set_response_status(code=answer.http_status, phrase=phrase, idx=position)
            context.set_response_content_type(position, "application/json")
        return [answer.body for answer in answers]
