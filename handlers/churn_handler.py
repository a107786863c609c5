"""The TorchServe entry: `churn_handler.py` at the root of the archive, beside the folder `handlers/`.

Everything it does is done by `handlers.predictor`, so that another server can host the same bundle.
"""

import atexit
import gc
import importlib
import logging
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from handlers import grpc_refusal
from handlers.bundle import BundleError
from handlers.messages import Call
from handlers.predictor import Predictor, load
from handlers.worker_socket import PHRASES, WorkerRequest, WorkerResponse, header_fields, take_over

if TYPE_CHECKING:
    from ts.context import Context

REQUEST_ID = "x-request-id"
OUR_REQUEST_ID = "x-churn-request-id"
"""TorchServe puts an id of its own into the answer's x-request-id, whatever the handler says."""
SAFE_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
"""A line break, say, would end the header early, and TorchServe's answer with it."""
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
        """One JSON body a request, each with its own HTTP status and headers."""
        calls = []
        for one in requests:
            given, explain, grpc = parse_header_block(one.headers)
            calls.append(Call(one.server_id.decode() if given is None else given, explain, grpc))
        return self._answered([one.row for one in requests], calls)

    def handle(self, rows: Sequence[Mapping[str, Any]], context: "Context") -> list[bytes]:
        """The same by TorchServe's own objects."""
        calls = [
            call_from_headers(context.get_all_request_header(i), context.get_request_id(i))
            for i in range(len(rows))
        ]
        bodies = []
        for position, (status, body, headers) in enumerate(self._answered(rows, calls)):
            context.set_response_status(code=status, phrase=PHRASES[status], idx=position)
            context.set_response_content_type(position, "application/json")
            for name, value in headers:
                context.set_response_header(position, name, value)
            bodies.append(body)
        return bodies

    def _answered(self, rows: Sequence[Mapping[str, Any]], calls: Sequence[Call]) -> list[WorkerResponse]:
        answers = self.predictor.answer(rows, calls)
        return [
            WorkerResponse(
                status,
                grpc_refusal.refused(status, body)
                if call.grpc and status != 200 and grpc_refusal.is_open_inference(row)
                else body,
                [(OUR_REQUEST_ID, call.request_id), *headers.items()],
            )
            for row, (status, body, headers, _), call in zip(rows, answers, calls, strict=True)
        ]


def call_from_headers(headers: Mapping[str, Any], server_id: str | None) -> Call:
    """By TorchServe's headers: the id that the client gave, else TorchServe's, and the address asked."""
    given, explain, grpc = parse_headers(headers)
    return Call(server_id or "" if given is None else given, explain, grpc)


def parse_headers(headers: Mapping[str, Any]) -> tuple[str | None, bool, bool]:
    """The client's id of the request if it gave one that can be repeated; whether it asks for explanations;
    whether it came over gRPC.

    TorchServe sets the header `explain` to True or False for each REST request and to nothing for gRPC, whose
    metadata it drops.
    """
    given = headers.get(REQUEST_ID)
    if given is None:
        given = next((v for k, v in headers.items() if k.lower() == REQUEST_ID), None)
    request_id = given if isinstance(given, str) and SAFE_REQUEST_ID.fullmatch(given) else None
    return request_id, headers.get("explain") == "True", "explain" not in headers


def parse_header_block(block: bytes) -> tuple[str | None, bool, bool]:
    """`parse_headers` of headers as they travel. A block that is no list says nothing.

    Not remembered: behind a gateway every request has an id of its own, so that no two blocks are alike.
    """
    request_id, explain = None, None
    try:
        for name, value in header_fields(block):
            if name == b"explain":
                explain = value
            elif len(name) == len(REQUEST_ID) and name.lower() == REQUEST_ID.encode():
                text = value.decode("utf-8", "replace")
                request_id = text if SAFE_REQUEST_ID.fullmatch(text) else None
    except ValueError:
        return None, False, False
    return request_id, explain == b"True", explain is None
