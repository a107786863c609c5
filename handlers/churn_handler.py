"""The TorchServe entry: `churn_handler.py` at the root of the archive, beside the folder `handlers/`.

Everything it does is done by `handlers.predictor`, so that another server can host the same bundle.
"""

import atexit
import gc
import importlib
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from handlers.bundle import BundleError
from handlers.loading import load
from handlers.predictor import Predictor
from handlers.protocol.call_headers import call_of
from handlers.protocol.messages import Answer, Call
from handlers.protocol.protocols import carried
from handlers.torchserve import grpc_refusal
from handlers.torchserve.worker_socket import PHRASES, WorkerRequest, WorkerResponse, header_fields, take_over

if TYPE_CHECKING:
    from ts.context import Context

OUR_REQUEST_ID = "x-churn-request-id"
"""TorchServe puts an id of its own into the answer's x-request-id, whatever the handler says."""
DESCRIBE = b"describe"
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
            log.warning(
                "TorchServe %s: worker_socket.py knows another version; messages go its slower way", version
            )
        # TorchServe's worker logs two lines a batch at this level
        logging.getLogger().setLevel(logging.WARNING)
        self.predictor.telemetry.start()
        # what is loaded stays: the collector of cycles need not go through it while requests wait
        gc.collect()
        gc.freeze()
        # the worker ends by sys.exit when its server closes the connection, and when it is sent SIGTERM, at
        # which by default nothing of ours would run
        atexit.register(self.predictor.close)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    def answer(self, requests: Sequence[WorkerRequest]) -> list[WorkerResponse]:
        """One body a request, each with its own HTTP status, content type and headers."""
        if any(DESCRIBE in one.headers for one in requests):
            return [self._described() if is_description(one) else self._alone(one) for one in requests]
        calls = [call_of(_fields(one.headers), one.server_id.decode()) for one in requests]
        return self._answered([one.row for one in requests], calls)

    def handle(self, rows: Sequence[Mapping[str, Any]], context: "Context") -> list[bytes]:
        """The same by TorchServe's own objects."""
        calls = [
            call_of(_encoded(context.get_all_request_header(i)), context.get_request_id(i) or "")
            for i in range(len(rows))
        ]
        bodies = []
        for position, (status, body, headers, content_type) in enumerate(self._answered(rows, calls)):
            context.set_response_status(code=status, phrase=PHRASES[status], idx=position)
            context.set_response_content_type(position, content_type)
            for name, value in headers:
                context.set_response_header(position, name, value)
            bodies.append(body)
        return bodies

    def _alone(self, request: WorkerRequest) -> WorkerResponse:
        call = call_of(_fields(request.headers), request.server_id.decode())
        return self._answered([request.row], [call])[0]

    def _described(self) -> WorkerResponse:
        """How the worker and its feature store do: `GET /models/<name>?customized=true` at management."""
        return WorkerResponse(200, json.dumps(self.predictor.health()).encode(), [])

    def _answered(self, rows: Sequence[Mapping[str, Any]], calls: Sequence[Call]) -> list[WorkerResponse]:
        answers = self.predictor.answer(rows, calls)
        return [_response(row, answer, call) for row, answer, call in zip(rows, answers, calls, strict=True)]


def is_description(request: WorkerRequest) -> bool:
    """TorchServe's command DESCRIBE: a header that it sets, and no body, which no prediction is without."""
    return not request.row and (DESCRIBE, b"True") in _fields(request.headers)


def _response(row: Mapping[str, Any], answer: Answer, call: Call) -> WorkerResponse:
    if call.rpc:
        answer = carried(answer, call)
    status, body, headers, content_type = answer
    if call.grpc and status != 200 and grpc_refusal.is_open_inference(row):
        body = grpc_refusal.refused(status, body)
    ours = [(OUR_REQUEST_ID, call.request_id)]
    if call.traceparent:
        ours.append(("traceparent", call.traceparent))
    return WorkerResponse(status, body, [*ours, *headers.items()], content_type)


def _fields(block: bytes) -> list[tuple[bytes, bytes]]:
    """Headers as they travel. A block that is no list says nothing, and comes from no gRPC call."""
    try:
        return header_fields(block)
    except ValueError:
        return [(b"explain", b"False")]


def _encoded(headers: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
    return [(str(name).encode(), str(value).encode("utf-8", "replace")) for name, value in headers.items()]
