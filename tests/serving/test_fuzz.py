"""100,000 hostile requests to a real server, and good requests at the same time.

Half of them are sent to TorchServe itself and half to the gateway. Requests with manipulated paths, methods
and headers are all sent to the gateway, which refuses them: TorchServe's router answers some with a 500.

FUZZ_REQUESTS sets their number, FUZZ_SEED the stream.
"""

import asyncio
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as oip

from handlers import telemetry
from serving.config import GatewayConfig, ServingConfig
from serving.gateway.process import Gateway
from serving.torchserve.server import TorchServe
from support import hostile_bodies, hostile_grpc
from support.hostile_bodies import Hostile
from support.served_bundle import FRESH, ServedBundle, files_of
from support.servers.raw_http import Connection, Cut, Response

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "100000"))
SEED = int(os.environ.get("FUZZ_SEED", "4"))
ATTACKERS, FRIENDS = 24, 8
BUG = telemetry.INTERNAL
"""The code of the handler's 503 for an unexpected exception. In this test it is a defect."""
FOR_THE_GATEWAY = {"path", "header"}
MAY_BE_CUT = {"large", "many", "compressed", "nested", "path", "header"}
"""Larger than the limit, or not HTTP: the server may close the connection before the end of the body."""


@dataclass(frozen=True)
class Served:
    server: TorchServe
    gateway: Gateway

    def direct(self) -> Connection:
        return _connection(self.server.inference, {"Authorization": f"Bearer {self.server.tokens.inference}"})

    def through_gateway(self) -> Connection:
        return _connection(self.gateway.url, {})

    def workers(self) -> list[int]:
        """The workers' process ids. They change when a worker dies and another one replaces it."""
        answer = httpx.get(
            f"{self.server.management}/models/churn",
            headers={"Authorization": f"Bearer {self.server.tokens.management}"},
            trust_env=False,
        )
        return sorted(worker["pid"] for worker in answer.raise_for_status().json()[0]["workers"])


def _connection(url: str, headers: dict[str, str]) -> Connection:
    address = urlsplit(url)
    return Connection(str(address.hostname), int(address.port or 0), headers)


@pytest.fixture(scope="module")
def served(bundle: ServedBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    files = files_of(tmp_path_factory.mktemp("fuzz"))
    config = ServingConfig(max_instances=500)
    with (
        TorchServe(config, bundle.archive, bundle.environment, files) as server,
        Gateway(GatewayConfig(keys=False), config, files) as gateway,
    ):
        gateway.serve({}, ())
        gateway.set_upstream("stable", server.upstream)
        yield Served(server, gateway)


def test_no_hostile_request_kills_a_worker_or_touches_a_neighbour(served: Served) -> None:
    workers = served.workers()
    expected = asyncio.run(scores_alone(served))
    found = asyncio.run(besieged(served, expected))
    assert not found["defects"], "\n".join(found["defects"])
    assert found["friends"] > REQUESTS // 100, "the good requests hardly ever met the hostile ones"
    assert served.workers() == workers
    statuses: Counter[int] = found["statuses"]
    assert sum(statuses.values()) >= REQUESTS - found["cut"]
    assert {200, 400, 404} <= set(statuses)
    # the counts, for the report of this test (pytest -s)
    print({"statuses": dict(statuses), "cut": found["cut"], "good": found["friends"]})


# gRPC statuses for errors of a client; UNAVAILABLE is the documented 503
REFUSALS = {
    *(grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND),
    *(grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.UNIMPLEMENTED),
    *(grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE),
}


def test_no_hostile_grpc_message_kills_a_worker_or_touches_a_neighbour(served: Served) -> None:
    workers = served.workers()
    expected = asyncio.run(scores_alone(served))
    defects, statuses = asyncio.run(besieged_by_grpc(served, expected))
    assert not defects, "\n".join(defects[:20])
    assert served.workers() == workers
    assert {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT} <= set(statuses)
    print({status.name: count for status, count in statuses.items()})


async def besieged_by_grpc(
    served: Served, expected: dict[int, float]
) -> tuple[list[str], Counter[grpc.StatusCode]]:
    """Every fourth message is valid and must get its customer's score."""
    stream = itertools.islice(enumerate(hostile_grpc.messages(SEED)), max(400, REQUESTS // 20))
    statuses: Counter[grpc.StatusCode] = Counter()
    defects: list[str] = []

    async def attack(channel: grpc.aio.Channel) -> None:
        call = channel.unary_unary(hostile_grpc.METHOD)
        for number, message in stream:
            status, answer = await _outcome(call, message)
            statuses[status] += 1
            if not _refused_well(status, answer) and hostile_grpc.readable(message):
                defects.append(f"{status.name} {answer!r:.200}: {message!r:.300}")
            if number % 4 == 0:
                user_id = FRESH[number % len(FRESH)]
                status, answer = await _outcome(call, hostile_grpc.infer([user_id]).SerializeToString())
                if status is not grpc.StatusCode.OK or _score(answer) != expected[user_id]:
                    defects.append(f"customer {user_id} got {status.name} {answer!r:.200}")

    address = served.gateway.url.removeprefix("http://")
    async with grpc.aio.insecure_channel(address) as first, grpc.aio.insecure_channel(address) as second:
        await asyncio.gather(*(attack((first, second)[i % 2]) for i in range(16)))
    return defects, statuses


def _refused_well(status: grpc.StatusCode, answer: Any) -> bool:
    """TorchServe itself answers INTERNAL for an unknown model or version, and UNKNOWN for a NaN, at which its
    JSON writer raises an exception, before a worker gets the request.
    """
    if status is grpc.StatusCode.INTERNAL:
        return "NotFoundException" in answer
    return status in REFUSALS or (status is grpc.StatusCode.UNKNOWN and not answer)


async def _outcome(call: Any, message: bytes) -> tuple[grpc.StatusCode, Any]:
    try:
        return grpc.StatusCode.OK, await call(message, timeout=60)
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details()


def _score(answer: bytes) -> float:
    outputs = {o.name: o for o in oip.ModelInferResponse.FromString(answer).outputs}
    return float(outputs["churn_probability"].contents.fp64_contents[0])


async def besieged(served: Served, expected: dict[int, float]) -> dict[str, Any]:
    """Hostile clients share one stream of requests. Good clients send requests until it has ended."""
    stream = itertools.islice(hostile_bodies.requests(SEED), REQUESTS)
    statuses: Counter[int] = Counter()
    defects: list[str] = []
    cut = friends = 0
    done = asyncio.Event()

    async def attack(from_outside: bool) -> None:
        nonlocal cut
        direct, gateway = served.direct(), served.through_gateway()
        for request in stream:
            connection = gateway if from_outside or request.kind in FOR_THE_GATEWAY else direct
            try:
                answer = await send(connection, request)
            except Cut:
                cut += 1
                if request.kind not in MAY_BE_CUT:
                    defects.append(f"cut: {shown(request)}")
            except TimeoutError:
                defects.append(f"no answer: {shown(request)}")
                await connection.close()
            else:
                statuses[answer.status] += 1
                if complaint := wrong_with(answer):
                    where = "gateway" if connection is gateway else "direct"
                    defects.append(f"{where} {answer.status} {complaint}: {shown(request)}")
        await direct.close()
        await gateway.close()

    async def befriend(first: int) -> None:
        nonlocal friends
        connection = served.through_gateway() if first % 2 else served.direct()
        for number in itertools.count(first):
            if done.is_set():
                break
            user_id = FRESH[number % len(FRESH)]
            answer = await send(connection, hostile_bodies.good(user_id, number))
            friends += 1
            if answer.status != 200 or score_in(answer) != expected[user_id]:
                defects.append(f"customer {user_id} got {answer.status}: {answer.body[:200]!r}")
        await connection.close()

    beside = [asyncio.create_task(befriend(7 * i)) for i in range(FRIENDS)]
    await asyncio.gather(*(attack(i % 2 == 0) for i in range(ATTACKERS)))
    done.set()
    await asyncio.gather(*beside)
    return {"statuses": statuses, "defects": defects[:20], "cut": cut, "friends": friends}


def wrong_with(answer: Response) -> str | None:
    """Why an answer to a hostile request is a defect; empty when it is none."""
    if answer.status == 503:
        code = json.loads(answer.body).get("code")
        documented = "retry-after" in answer.headers and code not in (None, BUG)
        return None if documented else f"undocumented 503 {answer.body[:120]!r}"
    if answer.status >= 500:
        return f"{answer.body[:120]!r}"
    if b"Traceback" in answer.body or b"/model/" in answer.body:
        return f"tells of the inside {answer.body[:120]!r}"
    return None


async def send(connection: Connection, request: Hostile) -> Response:
    return await connection.ask(request.method, request.path, request.headers, request.body, request.chunk)


async def scores_alone(served: Served) -> dict[int, float]:
    connection = served.direct()
    scores = {i: score_in(await send(connection, hostile_bodies.good(i, 0))) for i in FRESH}
    await connection.close()
    return scores


def score_in(answer: Response) -> float:
    content = json.loads(answer.body)
    if "outputs" in content:
        return float(content["outputs"][0]["data"][0])
    return float(content.get("predictions", [content])[0]["churn_probability"])


def shown(request: Hostile) -> str:
    return (
        f"{request.kind} {request.method} {request.path[:80]} {dict(request.headers)} "
        f"chunk={request.chunk} {len(request.body)} bytes {request.body[:300]!r}"
    )
