"""Every call of common clients, through the gateway and to a pod; all get the same bits of the scores."""

import importlib
import json
import shutil
import sys
import zipfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import httpx
import pytest
from grpc_tools import protoc

from handlers.identity import mask
from support import hostile_grpc
from support.clients.documented import IDS, documented, is_right, outcomes, wrong
from support.served_bundle import KEY, UNKNOWN, ServedBundle
from support.servers.container import Container
from support.servers.stack import Stack, supervisor_of
from support.waits import within


@pytest.fixture(scope="module")
def stack(bundle: ServedBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = supervisor_of(bundle, tmp_path_factory.mktemp("clients"))
    with made.supervisor:
        yield made


@pytest.fixture(scope="module")
def expected(stack: Stack) -> list[float]:
    answer = stack.post("/predictions/churn", json=[{"user_id": i} for i in IDS])
    scores = [entry["churn_probability"] for entry in answer.json()]
    assert len(set(scores)) > 30
    return scores


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ModuleType]]:
    """The stubs that grpcio-tools generates from the protos in TorchServe's jar."""
    folder = tmp_path_factory.mktemp("stubs")
    home = find_spec("ts")
    assert home is not None and home.origin is not None
    with zipfile.ZipFile(Path(home.origin).parent / "frontend" / "model-server.jar") as jar:
        for name in ("inference.proto", "management.proto"):
            (folder / f"torchserve_{name}").write_bytes(jar.read(f"proto/{name}"))
        for name in jar.namelist():
            if name.startswith("google/") and name.endswith(".proto"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(jar.read(name))
    if not (folder / "google" / "rpc" / "status.proto").exists():
        (folder / "google" / "rpc").mkdir(parents=True, exist_ok=True)
        (folder / "google" / "rpc" / "status.proto").write_text(STATUS_PROTO)
    arguments = ["protoc", f"-I{folder}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main([*arguments, "torchserve_inference.proto", "torchserve_management.proto"]) == 0
    sys.path.insert(0, str(folder))
    yield {
        name: importlib.import_module(f"torchserve_{name}")
        for name in ("inference_pb2", "inference_pb2_grpc", "management_pb2", "management_pb2_grpc")
    }
    sys.path.remove(str(folder))


STATUS_PROTO = """
syntax = "proto3";
package google.rpc;
import "google/protobuf/any.proto";
message Status { int32 code = 1; string message = 2; repeated google.protobuf.Any details = 3; }
"""


def address(stack: Stack) -> str:
    return stack.url.removeprefix("http://")


def key(stack: Stack) -> list[tuple[str, str]]:
    return [("x-api-key", stack.key)]


def test_native_and_v1_over_http(stack: Stack, expected: list[float]) -> None:
    one = [stack.post("/predictions/churn", json={"user_id": i}).json()["churn_probability"] for i in IDS[:5]]
    assert one == expected[:5]
    v1 = stack.post("/v1/models/churn:predict", json={"instances": [{"user_id": i} for i in IDS]}).json()
    assert [entry["churn_probability"] for entry in v1["predictions"]] == expected


def test_v1_explain(stack: Stack) -> None:
    answer = stack.post("/v1/models/churn:explain", json={"instances": [{"user_id": 1}]})
    assert answer.status_code == 200, answer.text


MASKED = [mask(str(i), KEY) for i in IDS]


def test_every_call_of_each_client_through_the_gateway(stack: Stack, expected: list[float]) -> None:
    found = outcomes(address(stack), stack.headers, address(stack), MASKED)
    assert wrong(found, expected) == {}
    if shutil.which("curl"):
        assert set(found) == set(documented(True))


def test_every_call_of_each_client_to_a_pod(
    bundle: ServedBundle, expected: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    container = Container(bundle.archive, tmp_path_factory.mktemp("pod"))
    with container.running(bundle.environment):
        # Envoy's next check comes after the first answer
        within(5, lambda: httpx.get(f"{container.url}/v2/health/ready", trust_env=False).status_code == 200)
        found = outcomes(container.address, {}, container.address, MASKED)
    assert wrong(found, expected) == {}


def test_the_document_is_correct_for_torchserve_alone(stack: Stack, expected: list[float]) -> None:
    upstream = stack.supervisor.model.upstream
    alone, over_grpc = (f"127.0.0.1:{port}" for port in (upstream.inference_port, upstream.grpc_port))
    found = outcomes(alone, {"authorization": f"Bearer {upstream.token}"}, over_grpc, MASKED)
    right = {call: is_right(call[1], answer, expected) for call, answer in found.items()}
    assert right == {call: yes for call, yes in documented(False).items() if call in found}


def test_refusals_over_grpc_have_their_statuses(stack: Stack) -> None:
    def refusal(method: str, message: bytes, metadata: Sequence[tuple[str, str]]) -> tuple[Any, str]:
        with grpc.insecure_channel(address(stack)) as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(method)(message, metadata=metadata, timeout=30)
        return refused.value.code(), refused.value.details()

    infer, code = hostile_grpc.METHOD, grpc.StatusCode
    large = hostile_grpc.infer([2**62] * 200_000).SerializeToString()
    for message, status, reason in (
        (hostile_grpc.infer([UNKNOWN]).SerializeToString(), code.NOT_FOUND, "unknown user_id"),
        (hostile_grpc.infer([1], model="other").SerializeToString(), code.NOT_FOUND, "model_name"),
        (hostile_grpc.infer([]).SerializeToString(), code.INVALID_ARGUMENT, "inputs[0].data: missing"),
        (b"\xff", code.INVALID_ARGUMENT, "not a ModelInferRequest"),
        (large, code.RESOURCE_EXHAUSTED, "max_request_bytes"),
    ):
        assert refusal(infer, message, key(stack))[0] == status
        assert reason in refusal(infer, message, key(stack))[1]
    assert refusal(infer, b"", ())[0] == code.UNAUTHENTICATED
    health = "/grpc.health.v1.Health/"
    assert refusal(health + "Check", b"\x0a\x05other", key(stack))[0] == code.NOT_FOUND
    assert refusal(health + "Watch", b"", key(stack)) == (code.UNIMPLEMENTED, "no such path")


def test_the_refusal_of_another_compression_names_the_header(stack: Stack) -> None:
    refused = stack.post(
        "/v1/models/churn:predict",
        content=b"x",
        headers={"content-type": "application/json", "content-encoding": "br"},
    )
    assert refused.status_code == 415
    assert "Content-Encoding" in refused.json()["error"]


def test_another_version_is_a_404(stack: Stack) -> None:
    body = {"inputs": [{"name": "user_id", "shape": [1], "datatype": "INT64", "data": [1]}]}
    for method, path in (("POST", "infer"), ("GET", "ready"), ("GET", "")):
        path = f"/v2/models/churn/versions/other/{path}".rstrip("/")
        refused = stack.ask(method, path, json=body)
        assert (refused.status_code, "version" in refused.json()["error"]) == (404, True), path


def test_head_is_answered_and_405_names_the_allowed_methods(stack: Stack) -> None:
    for path in ("/v2/health/live", "/v2/health/ready"):
        answer = httpx.head(stack.url + path, trust_env=False)
        assert (answer.status_code, answer.content) == (200, b"")
    assert stack.ask("GET", "/predictions/churn").headers["allow"] == "POST"
    assert stack.post("/v2/health/live").headers["allow"] == "GET, HEAD"


def test_the_trace_context_is_passed_on_and_returned(stack: Stack) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for sent, back in ((trace, trace), ("nonsense", None)):
        answer = stack.post("/predictions/churn", json={"user_id": 1}, headers={"traceparent": sent})
        assert answer.status_code == 200
        assert answer.headers.get("traceparent") == back
    assert "traceparent" not in stack.post("/predictions/churn", json={"user_id": 1}).headers


def test_large_answers_are_compressed_on_request(stack: Stack) -> None:
    body = [{"user_id": i} for i in IDS]
    compressed = stack.post("/predictions/churn", json=body, headers={"accept-encoding": "gzip"})
    plain = stack.post("/predictions/churn", json=body, headers={"accept-encoding": "identity"})
    assert compressed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert compressed.json() == plain.json()


def test_torchserve_s_own_grpc(stack: Stack, expected: list[float], stubs: dict[str, ModuleType]) -> None:
    request = stubs["inference_pb2"].PredictionsRequest(
        model_name="churn", input={"body": json.dumps([{"user_id": i} for i in IDS]).encode()}
    )
    with grpc.insecure_channel(address(stack)) as channel:
        stub = stubs["inference_pb2_grpc"].InferenceAPIsServiceStub(channel)
        answer = stub.Predictions(request, metadata=key(stack), timeout=30)
        assert [entry["churn_probability"] for entry in json.loads(answer.prediction)] == expected
        # without a key, and with TorchServe's token instead
        for metadata in ((), (("authorization", "Bearer guessed"),)):
            with pytest.raises(grpc.RpcError) as refused:
                stub.Predictions(request, metadata=metadata, timeout=30)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        management = stubs["management_pb2_grpc"].ManagementAPIsServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            management.ListModels(
                stubs["management_pb2"].ListModelsRequest(), metadata=key(stack), timeout=30
            )
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_an_unknown_customer_is_an_error_in_every_protocol(
    stack: Stack, stubs: dict[str, ModuleType]
) -> None:
    assert stack.post("/predictions/churn", json={"user_id": UNKNOWN}).status_code == 404
    request = stubs["inference_pb2"].PredictionsRequest(
        model_name="churn", input={"body": json.dumps({"user_id": UNKNOWN}).encode()}
    )
    with grpc.insecure_channel(address(stack)) as channel:
        stub = stubs["inference_pb2_grpc"].InferenceAPIsServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.Predictions(request, metadata=key(stack), timeout=30)
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.NOT_FOUND, "unknown user_id")
