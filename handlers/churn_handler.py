"""TorchServe's entry: `churn_handler.py` at the root of the archive, beside the folder `handlers/`.

It only connects TorchServe to `handlers.predictor`, so that another server can serve the same archive.
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
from handlers.torchserve.batch_message import PHRASES, WorkerRequest, WorkerResponse, header_fields
from handlers.torchserve.worker_socket import take_over

if TYPE_CHECKING:
    from ts.context import Context

OUR_REQUEST_ID = "x-churn-request-id"
"""In the header x-request-id of the answer TorchServe writes an id of its own, over that of the handler."""
DESCRIBE = b"describe"
log = logging.getLogger("churn.handler")


class ChurnHandler:
    """TorchServe calls `initialize` once in each worker, and then `answer` for each batch; or `handle`, if
    its version is not the one that `worker_socket` supports.
    """

    predictor: Predictor

    def initialize(self, context: "Context") -> None:
        torch.set_num_threads(1)  # workers share the cores; small products are slower on several threads
        # Threads of the prediction log and the metrics release the interpreter sooner than after 5 ms.
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
                "TorchServe %s: worker_socket.py supports another version, so messages are read more slowly",
                version,
            )
        # At a lower level TorchServe's worker logs two lines for each batch.
        logging.getLogger().setLevel(logging.WARNING)
        self.predictor.telemetry.start()
        # Loaded objects stay until the end, so the garbage collector need not visit them while requests wait.
        gc.collect()
        gc.freeze()
        # The worker calls sys.exit when the server closes the connection. At SIGTERM, which by default ends a
        # process without running exit handlers, it does the same.
        atexit.register(self.predictor.close)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    def answer(self, requests: Sequence[WorkerRequest]) -> list[WorkerResponse]:
        """One response for each request, with an HTTP status, content type and headers of its own."""
        if any(DESCRIBE in one.headers for one in requests):
            return [self._described() if is_description(one) else self._alone(one) for one in requests]
        calls = [call_of(_fields(one.headers), one.server_id.decode()) for one in requests]
        return self._answered([one.row for one in requests], calls)

    def handle(self, rows: Sequence[Mapping[str, Any]], context: "Context") -> list[bytes]:
        """The bodies of the answers; their status and headers are set on TorchServe's `context`."""
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
        """Answers `GET /models/<name>?customized=true` of the management API."""
        return WorkerResponse(200, json.dumps(self.predictor.health()).encode(), [])

    def _answered(self, rows: Sequence[Mapping[str, Any]], calls: Sequence[Call]) -> list[WorkerResponse]:
        answers = self.predictor.answer(rows, calls)
        return [_response(row, answer, call) for row, answer, call in zip(rows, answers, calls, strict=True)]


def is_description(request: WorkerRequest) -> bool:
    """Whether it is TorchServe's command DESCRIBE: it has this header and, unlike a prediction, no body."""
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
    """The headers in a block of a message. An invalid block counts as a REST request without headers."""
    try:
        return header_fields(block)
    except ValueError:
        return [(b"explain", b"False")]


def _encoded(headers: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
    return [(str(name).encode(), str(value).encode("utf-8", "replace")) for name, value in headers.items()]
