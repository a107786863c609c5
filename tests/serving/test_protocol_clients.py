"""One real client of each protocol through the gateway; all read the same scores to the bit."""

import asyncio
import importlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_tools import protoc
from served_bundle import UNKNOWN, ServedBundle
from stack import Stack, supervisor_of

IDS = list(range(1, 41))


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
    """What grpcio-tools makes of the protos inside TorchServe's own jar."""
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


def test_kserve_s_rest_client(stack: Stack, expected: list[float]) -> None:
    from kserve import InferInput, InferRequest, RESTConfig
    from kserve.inference_client import InferenceRESTClient

    async def ask(protocol: str) -> Any:
        async with InferenceRESTClient(RESTConfig(protocol=protocol, timeout=30)) as client:
            ready = await client.is_model_ready(stack.url, "churn", headers=stack.headers)
            live = await client.is_server_live(stack.url, headers=stack.headers)
            if protocol == "v1":
                data: Any = {"instances": [{"user_id": i} for i in IDS]}
            else:
                assert await client.is_server_ready(stack.url, headers=stack.headers)
                data = InferRequest("churn", [InferInput("user_id", [len(IDS)], "INT64", IDS)])
            return ready, live, await client.infer(stack.url, data, "churn", headers=stack.headers)

    ready, live, answer = asyncio.run(ask("v1"))
    assert (ready, live) == (True, True)
    assert [entry["churn_probability"] for entry in answer["predictions"]] == expected
    ready, live, answer = asyncio.run(ask("v2"))
    assert (ready, live) == (True, True)
    assert answer.outputs[0].name == "churn_probability"
    assert list(answer.outputs[0].data) == expected


def test_kserve_s_grpc_client(stack: Stack, expected: list[float]) -> None:
    from kserve import InferInput, InferRequest
    from kserve.inference_client import InferenceGRPCClient

    async def ask() -> Any:
        async with InferenceGRPCClient(address(stack), timeout=30, retries=2) as client:
            assert await client.is_server_live(headers=key(stack))
            assert await client.is_server_ready(headers=key(stack))
            assert await client.is_model_ready("churn", headers=key(stack))
            request = InferRequest("churn", [InferInput("user_id", [len(IDS)], "INT64", IDS)])
            return await client.infer(request, headers=key(stack))

    answer = asyncio.run(ask())
    scores = next(output for output in answer.outputs if output.name == "churn_probability")
    assert list(scores.as_numpy()) == expected


def test_triton_s_http_client(stack: Stack, expected: list[float]) -> None:
    import tritonclient.http as triton

    client = triton.InferenceServerClient(address(stack))
    try:
        headers = stack.headers
        assert client.is_server_live(headers) and client.is_server_ready(headers)
        assert client.is_model_ready("churn", headers=headers)
        assert client.get_model_metadata("churn", headers=headers)["inputs"][0]["name"] == "user_id"
        asked = triton.InferInput("user_id", [len(IDS)], "INT64")
        asked.set_data_from_numpy(np.array(IDS), binary_data=False)
        wanted = triton.InferRequestedOutput("churn_probability", binary_data=False)
        answer = client.infer("churn", [asked], outputs=[wanted], headers=headers)
        assert answer.as_numpy("churn_probability").tolist() == expected
    finally:
        client.close()


# a process of its own: tritonclient and the KServe SDK define the same protobuf names
TRITON = """
import json, sys
import grpc, numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

address, key, ids = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
headers = {"x-api-key": key}
with triton.InferenceServerClient(address) as client:
    ready = [client.is_server_live(headers), client.is_server_ready(headers)]
    ready += [client.is_model_ready("churn", headers=headers)]
    raw = triton.InferInput("user_id", [len(ids)], "INT64")
    raw.set_data_from_numpy(np.array(ids))
    try:
        client.infer("churn", [raw], headers=headers)
        refusal = None
    except triton.InferenceServerException as error:
        refusal = str(error)
with grpc.insecure_channel(address) as channel:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    request = service_pb2.ModelInferRequest(model_name="churn", id="q")
    tensor = request.inputs.add(name="user_id", datatype="INT64", shape=[len(ids)])
    tensor.contents.int64_contents.extend(ids)
    answer = stub.ModelInfer(request, metadata=list(headers.items()), timeout=30)
scores = next(output for output in answer.outputs if output.name == "churn_probability")
found = list(scores.contents.fp64_contents)
print(json.dumps({"ready": ready, "refusal": refusal, "id": answer.id, "scores": found}))
"""


def test_triton_s_grpc_client(stack: Stack, expected: list[float]) -> None:
    """Typed contents work. TorchServe drops `raw_input_contents`, which tritonclient sends for numpy arrays:
    they are refused with a message that says so, and never answered from nothing.
    """
    command = [sys.executable, "-c", TRITON, address(stack), stack.key, json.dumps(IDS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["ready"] == [True, True, True]
    assert said["scores"] == expected
    assert said["id"] == "q"
    assert "raw_input_contents" in (said["refusal"] or "answered")


def test_torchserve_s_own_grpc(stack: Stack, expected: list[float], stubs: dict[str, ModuleType]) -> None:
    request = stubs["inference_pb2"].PredictionsRequest(
        model_name="churn", input={"body": json.dumps([{"user_id": i} for i in IDS]).encode()}
    )
    with grpc.insecure_channel(address(stack)) as channel:
        stub = stubs["inference_pb2_grpc"].InferenceAPIsServiceStub(channel)
        answer = stub.Predictions(request, metadata=key(stack), timeout=30)
        assert [entry["churn_probability"] for entry in json.loads(answer.prediction)] == expected
        # without a key, and with TorchServe's token in its place
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
        answer = stub.Predictions(request, metadata=key(stack), timeout=30)
    assert "unknown" in json.loads(answer.prediction)["error"]
