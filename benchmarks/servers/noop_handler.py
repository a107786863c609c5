"""The upper limit: the same TorchServe and settings, with a handler that always returns the same answer.

NOOP_READS selects the work of the handler. `nothing`: none. `messages`: messages are read as by our handler
(handlers/torchserve/worker_socket.py), which is faster than TorchServe's own way. `features`: in addition,
the features of each customer of the batch are read by our reader.
"""

import importlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ANSWER = b'{"user_id": 1, "churn_probability": 0.5, "prediction": "Low Risk", "status": "ok"}'


class NoopHandler:
    def initialize(self, context: Any) -> None:
        reads = os.environ.get("NOOP_READS", "nothing")
        if reads == "nothing":
            return
        socket = importlib.import_module("handlers.torchserve.worker_socket")
        messages = importlib.import_module("handlers.torchserve.batch_message")
        self._response = messages.WorkerResponse(200, ANSWER, [])
        if reads == "features":
            self._open(Path(context.system_properties["model_dir"]))
        taken = socket.take_over(
            sys.modules["__main__"],
            importlib.import_module("ts.protocol.otf_message_handler"),
            importlib.import_module("ts.service").Service,
            importlib.import_module("ts").__version__,
            self._read_and_answer if reads == "features" else self._answer,
        )
        if not taken:
            raise RuntimeError("our reader does not support this version of TorchServe")
        logging.getLogger().setLevel(logging.WARNING)

    def handle(self, rows: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        for position in range(len(rows)):
            context.set_response_content_type(position, "application/json")
        return [ANSWER] * len(rows)

    def _open(self, model_dir: Path) -> None:
        bundle = importlib.import_module("handlers.bundle").read_bundle(model_dir)
        self._id_type = bundle.id_type
        self._key = importlib.import_module("handlers.mask_key").read_mask_key(os.environ, bundle.key_check)
        self._pseudonym = importlib.import_module("handlers.identity").pseudonym
        self._features = importlib.import_module("handlers.store.opening").open_features(model_dir, bundle)
        self._offset = timedelta(seconds=float(os.environ["CHURN_CLOCK_OFFSET_S"]))

    def _answer(self, requests: Sequence[Any]) -> list[Any]:
        return [self._response] * len(requests)

    def _read_and_answer(self, requests: Sequence[Any]) -> list[Any]:
        user_ids = [json.loads(one.row["body"])["instances"][0]["user_id"] for one in requests]
        ids = dict.fromkeys(self._pseudonym(user_id, self._id_type, self._key) for user_id in user_ids)
        vectors = self._features.read(list(ids), datetime.now(UTC) + self._offset)
        if set(vectors.status) != {"ok"}:
            raise RuntimeError("the features of a customer are not fresh")
        return self._answer(requests)
