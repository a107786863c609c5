"""gRPC statuses of the gateway for too many requests and for timeouts; compression."""

import gzip
import json
import os
import signal
import zlib
from collections.abc import Iterator

import grpc
import psutil
import pytest

from serving.config import GatewayConfig
from support import hostile_grpc
from support.served_bundle import ServedBundle
from support.servers.stack import Stack, supervisor_of
from support.waits import within

BURST = 8
BODY = json.dumps([{"user_id": i} for i in range(1, 41)]).encode()


@pytest.fixture(scope="module")
def stack(bundle: ServedBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    gateway = GatewayConfig(timeout_s=1, requests_per_s=BURST, burst=BURST)
    made = supervisor_of(bundle, tmp_path_factory.mktemp("refusals"), gateway)
    with made.supervisor:
        yield made


def called(stack: Stack) -> tuple[grpc.StatusCode, str]:
    message = hostile_grpc.infer([1]).SerializeToString()
    with grpc.insecure_channel(stack.url.removeprefix("http://")) as channel:
        try:
            channel.unary_unary(hostile_grpc.METHOD)(message, metadata=[("x-api-key", stack.key)], timeout=20)
        except grpc.RpcError as refused:
            return refused.code(), refused.details()
    return grpc.StatusCode.OK, ""


def test_no_answer_in_time_is_deadline_exceeded(stack: Stack) -> None:
    [worker] = psutil.Process(stack.supervisor.model.pid).children()
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        status, reason = called(stack)
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    assert (status, reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "no answer in time; try again later")
    within(20, lambda: called(stack)[0] == grpc.StatusCode.OK)


def test_too_many_requests_are_resource_exhausted(stack: Stack) -> None:
    found = {called(stack) for _ in range(5 * BURST)}
    refused = [(status, reason) for status, reason in found if status != grpc.StatusCode.OK]
    assert refused == [(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests; try again later")]


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("deflate", zlib.compress(BODY)),
        ("deflate", zlib.compress(BODY, wbits=-15)),
        ("gzip", gzip.compress(BODY, mtime=0)),
    ],
    ids=["zlib", "raw", "gzip"],
)
def test_a_compressed_body_is_read(stack: Stack, encoding: str, content: bytes) -> None:
    headers = {"content-encoding": encoding}
    within(10, lambda: stack.post("/predictions/churn", content=content, headers=headers).status_code == 200)


def test_a_client_that_accepts_only_deflate_gets_an_uncompressed_answer(stack: Stack) -> None:
    def encoding(accepted: str) -> str | None:
        answer = stack.post("/predictions/churn", content=BODY, headers={"accept-encoding": accepted})
        assert len(answer.json()) == 40 if answer.status_code == 200 else answer.status_code == 429
        return answer.headers.get("content-encoding") if answer.status_code == 200 else "429"

    within(10, lambda: encoding("deflate") is None)
    within(10, lambda: encoding("deflate, gzip") == "gzip")
