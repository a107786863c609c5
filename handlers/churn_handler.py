"""The TorchServe entry: `churn_handler.py` at the root of the archive, beside the folder `handlers/`.

Everything it does is done by `handlers.predictor`, so that another server can host the same bundle.
"""

import importlib
import logging
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from handlers import grpc_refusal
from handlers.bundle import BundleError
from handlers.predictor import Predictor, load
from handlers.protocols import Call
from handlers.worker_socket import read_in_large_pieces

if TYPE_CHECKING:
    from ts.context import Context

REQUEST_ID = "x-request-id"
OUR_REQUEST_ID = "x-churn-request-id"
"""TorchServe puts an id of its own into the answer's x-request-id, whatever the handler says."""
SAYABLE = re.compile(r"[\x21-\x7e]{1,128}")
PHRASES = {status.value: status.phrase for status in HTTPStatus}


class ChurnHandler:
    """TorchServe calls `initialize` once a worker and `handle` once a batch."""

    predictor: Predictor

    def initialize(self, context: "Context") -> None:
        torch.set_num_threads(1)  # workers share the cores; small products are slower on several threads
        # the threads of the prediction log and the metrics hand the interpreter back sooner than in 5 ms
        sys.setswitchinterval(0.0005)
        try:
            self.predictor = load(
                Path(context.system_properties["model_dir"]), os.environ, str(context.model_name)
            )
        except BundleError as error:
            logging.getLogger("churn.handler").error("REFUSED %s", error)
            raise
        read_in_large_pieces(importlib.import_module("ts.protocol.otf_message_handler"))
        # TorchServe's worker logs two lines a batch at this level
        logging.getLogger().setLevel(logging.WARNING)
        self.predictor.telemetry.start()
        # by sys.exit, so that the prediction log writes what it holds; by default nothing of ours would run
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    def handle(self, rows: Sequence[Mapping[str, Any]], context: "Context") -> list[bytes]:
        """One JSON body a row, each with its own HTTP status and headers."""
        calls = [
            call_of(context.get_all_request_header(i), context.get_request_id(i)) for i in range(len(rows))
        ]
        answers = self.predictor.answer(rows, calls)
        for position, (answer, call) in enumerate(zip(answers, calls, strict=True)):
            context.set_response_status(
                code=answer.http_status, phrase=PHRASES[answer.http_status], idx=position
            )
            context.set_response_content_type(position, "application/json")
            context.set_response_header(position, OUR_REQUEST_ID, call.request_id)
            for name, value in answer.headers.items():
                context.set_response_header(position, name, value)
        return [
            grpc_refusal.refused(answer.http_status, answer.body)
            if call.grpc and answer.http_status != 200 and grpc_refusal.is_open_inference(row)
            else answer.body
            for row, answer, call in zip(rows, answers, calls, strict=True)
        ]


def call_of(headers: Mapping[str, Any], server_id: str | None) -> Call:
    """What TorchServe says of a request: the client's id, else its own, and at which address it came in.

    It sets the header `explain` to True or False for each REST request and to nothing for gRPC, whose
    metadata it drops.
    """
    given = headers.get(REQUEST_ID)
    if given is None:
        given = next((v for k, v in headers.items() if k.lower() == REQUEST_ID), None)
    # a line break would end the header early, and TorchServe's answer with it
    said = given if isinstance(given, str) and SAYABLE.fullmatch(given) else server_id or ""
    return Call(said, headers.get("explain") == "True", "explain" not in headers)
