"""Every call of the KServe SDK's clients, REST and gRPC, and of gRPC's health protocol.

The SDK writes headers of its own into those that it is given: each call gets a copy.
"""

import asyncio

import grpc
import numpy as np
from calls import ADDRESS, GRPC, HEADERS, IDS, MODEL, outcomes, report
from kserve import InferInput, InferRequest, RESTConfig
from kserve.inference_client import InferenceGRPCClient, InferenceRESTClient
from kserve.protocol.infer_type import RequestedOutput

URL = f"http://{ADDRESS}"
METADATA = [(name.lower(), value) for name, value in HEADERS.items()]
INSTANCES = {"instances": [{"user_id": i} for i in IDS]}


def rest(protocol, call):
    async def ask():
        async with InferenceRESTClient(RESTConfig(protocol=protocol, timeout=30)) as client:
            return await call(client)

    return lambda: asyncio.run(ask())


def over_grpc(call):
    async def ask():
        async with InferenceGRPCClient(GRPC, timeout=30, retries=2) as client:
            return await call(client)

    return lambda: asyncio.run(ask())


def request(shape=None, numpy=False, outputs=None, nested=False, **how):
    shape = shape or [len(IDS)]
    if not numpy:
        data = [[i] for i in IDS] if nested else IDS
        return InferRequest(MODEL, [InferInput("user_id", shape, "INT64", data)], request_outputs=outputs)
    tensor = InferInput("user_id", shape, "INT64")
    tensor.set_data_from_numpy(np.array(IDS).reshape(shape), **how)
    return InferRequest(MODEL, [tensor], request_outputs=outputs)


def scores(answer):
    return next(o for o in answer.outputs if o.name == "churn_probability").as_numpy().tolist()


async def v1_scores(client):
    answer = await client.infer(URL, INSTANCES, MODEL, headers=dict(HEADERS))
    return [one["churn_probability"] for one in answer["predictions"]]


async def v1_explained(client):
    few = {"instances": INSTANCES["instances"][:5]}
    answer = await client.explain(URL, MODEL, few, headers=dict(HEADERS))
    return len(answer["explanations"])


def v2(**how):
    async def call(client):
        return scores(await client.infer(URL, request(**how), MODEL, headers=dict(HEADERS)))

    return rest("v2", call)


def infer(**how):
    async def call(client):
        return scores(await client.infer(request(**how), headers=METADATA))

    return over_grpc(call)


async def named(client):
    wanted = [RequestedOutput("status"), RequestedOutput("churn_probability")]
    answer = await client.infer(URL, request(outputs=wanted), MODEL, headers=dict(HEADERS))
    return [output.name for output in answer.outputs]


async def named_over_grpc(client):
    wanted = [RequestedOutput("status"), RequestedOutput("churn_probability")]
    answer = await client.infer(request(outputs=wanted), headers=METADATA)
    return [output.name for output in answer.outputs]


def health(service):
    """grpc.health.v1, whose messages have one field each."""
    with grpc.insecure_channel(GRPC) as channel:
        message = bytes([10, len(service)]) + service.encode() if service else b""
        answer = channel.unary_unary("/grpc.health.v1.Health/Check")(message, metadata=METADATA, timeout=30)
    return {b"\x08\x01": "SERVING", b"\x08\x02": "NOT_SERVING"}[answer]


report(
    outcomes(
        {
            "REST v1 is_server_live": rest("v1", lambda c: c.is_server_live(URL, headers=dict(HEADERS))),
            "REST v1 is_model_ready": rest(
                "v1", lambda c: c.is_model_ready(URL, MODEL, headers=dict(HEADERS))
            ),
            "REST v1 infer": rest("v1", v1_scores),
            "REST v1 explain": rest("v1", v1_explained),
            "REST v2 is_server_live": rest("v2", lambda c: c.is_server_live(URL, headers=dict(HEADERS))),
            "REST v2 is_server_ready": rest("v2", lambda c: c.is_server_ready(URL, headers=dict(HEADERS))),
            "REST v2 is_model_ready": rest(
                "v2", lambda c: c.is_model_ready(URL, MODEL, headers=dict(HEADERS))
            ),
            "REST v2 infer, list": v2(),
            "REST v2 infer, list [n, 1]": v2(shape=[len(IDS), 1]),
            "REST v2 infer, nested list [n, 1]": v2(shape=[len(IDS), 1], nested=True),
            "REST v2 infer, numpy": v2(numpy=True),
            "REST v2 infer, numpy [n, 1]": v2(numpy=True, shape=[len(IDS), 1]),
            "REST v2 infer, numpy, binary_data=False": v2(numpy=True, binary_data=False),
            "REST v2 infer, request_outputs": rest("v2", named),
            "gRPC is_server_live": over_grpc(lambda c: c.is_server_live(headers=METADATA)),
            "gRPC is_server_ready": over_grpc(lambda c: c.is_server_ready(headers=METADATA)),
            "gRPC is_model_ready": over_grpc(lambda c: c.is_model_ready(MODEL, headers=METADATA)),
            "gRPC infer, list": infer(),
            "gRPC infer, list [n, 1]": infer(shape=[len(IDS), 1]),
            "gRPC infer, numpy": infer(numpy=True),
            "gRPC infer, numpy [n, 1]": infer(numpy=True, shape=[len(IDS), 1]),
            "gRPC infer, numpy, binary_data=False": infer(numpy=True, binary_data=False),
            "gRPC infer, request_outputs": over_grpc(named_over_grpc),
            "grpc.health.v1 Check": lambda: health(""),
            "grpc.health.v1 Check, service": lambda: health("inference.GRPCInferenceService"),
        }
    )
)
