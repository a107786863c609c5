"""The TorchServe entry: `churn_handler.py` at the root of the archive, beside the folder `handlers/`.

Everything it does is done by `handlers.predictor`, so that another server can host the same bundle.
"""

import gc
import importlib
import logging
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from handlers import grpc_refusal
from handlers.bundle import BundleError
from handlers.messages import Call
from handlers.predictor import Predictor, load
from handlers.worker_socket import PHRASES, Answered, Asked, headers_in, take_over

if TYPE_CHECKING:
    from ts.context import Context

REQUEST_ID = "x-request-id"
OUR_REQUEST_ID = "x-churn-request-id"
"""TorchServe puts an id of its own into the answer's x-request-id, whatever the handler says."""
SAYABLE = re.compile(r"[\x21-\x7e]{1,128}")
log = logging.getLogger("churn.handler")


class ChurnHandler:
    """TorchServe calls `initialize` once a worker. Then its worker asks `answer` once a batch, or `handle`
    where it is of another version than `worker_socket` knows.
    """

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
            log.error("REFUSED %s", error)
            raise
        version = importlib.import_module("ts").__version__
        if not take_over(
            sys.modules["__main__"],
            importlib.import_module("ts.protocol.otf_message_handler"),
            importlib.import_module("ts.service").Service,
            version,
            self.answer,
        ):
            log.warning("TorchServe %s is not known here: its worker goes its own, slower way", version)
        # TorchServe's worker logs two lines a batch at this level
        logging.getLogger().setLevel(logging.WARNING)
        self.predictor.telemetry.start()
        # what is loaded stays: the collector of cycles need not go through it while requests wait
        gc.collect()
        gc.freeze()
        # by sys.exit, so that the prediction log writes what it holds; by default nothing of ours would run
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    def answer(self, asked: Sequence[Asked]) -> list[Answered]:
        """One JSON body a request, each with its own HTTP status and headers."""
        calls = []
        for one in asked:
            given, explain, grpc = said_in(one.headers)
            calls.append(Call(one.server_id.decode() if given is None else given, explain, grpc))
        return self._answered([one.row for one in asked], calls)

    def handle(self, rows: Sequence[Mapping[str, Any]], context: "Context") -> list[bytes]:
        """The same by TorchServe's own objects."""
        calls = [
            call_of(context.get_all_request_header(i), context.get_request_id(i)) for i in range(len(rows))
        ]
        bodies = []
        for position, (status, body, headers) in enumerate(self._answered(rows, calls)):
            context.set_response_status(code=status, phrase=PHRASES[status], idx=position)
            context.set_response_content_type(position, "application/json")
            for name, value in headers:
                context.set_response_header(position, name, value)
            bodies.append(body)
        return bodies

    def _answered(self, rows: Sequence[Mapping[str, Any]], calls: Sequence[Call]) -> list[Answered]:
        answers = self.predictor.answer(rows, calls)
        return [
            Answered(
                status,
                grpc_refusal.refused(status, body)
                if call.grpc and status != 200 and grpc_refusal.is_open_inference(row)
                else body,
                [(OUR_REQUEST_ID, call.request_id), *headers.items()],
            )
            for row, (status, body, headers, _), call in zip(rows, answers, calls, strict=True)
        ]


def call_of(headers: Mapping[str, Any], server_id: str | None) -> Call:
    """What TorchServe says of a request: the client's id, else its own, and at which address it came in."""
    given, explain, grpc = said_by(headers)
    return Call(server_id or "" if given is None else given, explain, grpc)


def said_by(headers: Mapping[str, Any]) -> tuple[str | None, bool, bool]:
    """The client's id of the request if it gave one that can be repeated; whether it asks for explanations;
    whether it came over gRPC.

    TorchServe sets the header `explain` to True or False for each REST request and to nothing for gRPC, whose
    metadata it drops.
    """
    given = headers.get(REQUEST_ID)
    if given is None:
        given = next((v for k, v in headers.items() if k.lower() == REQUEST_ID), None)
    # a line break would end the header early, and TorchServe's answer with it
    said = given if isinstance(given, str) and SAYABLE.fullmatch(given) else None
    return said, headers.get("explain") == "True", "explain" not in headers


@lru_cache(1024)
def said_in(block: bytes) -> tuple[str | None, bool, bool]:
    """`said_by` of headers as they travel: those of one client are mostly the same ones."""
    return said_by(headers_in(block))
