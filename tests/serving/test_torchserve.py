"""A real TorchServe with a real archive: protocols, requests in a batch, and what is left after a stop."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from core.errors import ServingError
from core.workspace import Workspace
from serving.client import predict, running
from serving.config import ServingConfig
from serving.torchserve.server import TorchServe
from serving.torchserve.tokens import Tokens
from support.served_bundle import UNKNOWN, ServedBundle, files_of, make_archive
from support.waits import within

# the shipped handler, which also records the number of requests in each batch
COUNTED = """

import os as _os
_answer = ChurnHandler.answer

def _counted(self, requests):
    with open(_os.environ["BATCH_SIZES"], "a") as file:
        file.write(f"{len(requests)}\\n")
    return _answer(self, requests)

ChurnHandler.answer = _counted
"""


class Running:
    def __init__(self, server: TorchServe, files: Workspace, batch_sizes: Path) -> None:
        self.server, self.files, self._batch_sizes = server, files, batch_sizes

    def post(self, path: str, **request: Any) -> httpx.Response:
        request["headers"] = {**self.headers, **request.get("headers", {})}
        return httpx.post(self.server.inference + path, timeout=30, trust_env=False, **request)

    @property
    def headers(self) -> dict[str, str]:
        return Tokens.headers(self.server.tokens.inference)

    def predict(self, *ids: int | str) -> list[dict[str, Any]]:
        return predict(self.server.inference, "churn", ids, self.server.tokens.inference)

    def batch_sizes(self) -> list[int]:
        return [int(line) for line in self._batch_sizes.read_text().split()]


@pytest.fixture(scope="module")
def served(bundle: ServedBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    # a space and a letter outside of ASCII: paths are part of a properties file, a pattern and a URL
    folder = tmp_path_factory.mktemp("with blank é")
    model_dir = shutil.copytree(bundle.model_dir, folder / "model")
    handler = model_dir / "churn_handler.py"
    handler.write_text(handler.read_text() + COUNTED)
    archive = make_archive(model_dir, folder / "model-store" / "tiny.mar")
    environment = {**bundle.environment, "BATCH_SIZES": str(folder / "batches")}
    with (
        pytest.MonkeyPatch.context() as patch,
        TorchServe(ServingConfig(max_instances=500), archive, environment, files_of(folder)) as server,
    ):
        patch.delenv("http_proxy", raising=False)
        yield Running(server, files_of(folder), folder / "batches")


def v2(ids: list[Any], **more: Any) -> dict[str, Any]:
    tensor = {"name": "user_id", "shape": [len(ids)], "datatype": "INT64", "data": ids}
    return {"inputs": [tensor], **more}


def test_every_protocol_gives_the_same_bits(served: Running) -> None:
    ids = list(range(1, 201))
    one_by_one = [
        served.post("/predictions/churn", json={"user_id": i}).json()["churn_probability"] for i in ids[:20]
    ]
    native = served.post("/predictions/churn", json=[{"user_id": i} for i in ids]).json()
    v1 = served.post("/v1/models/churn:predict", json={"instances": [{"user_id": i} for i in ids]}).json()
    oip = served.post("/v2/models/churn/infer", json=v2(ids, id="q")).json()
    expected = oip["outputs"][0]["data"]
    assert expected[:20] == one_by_one
    assert [answer["churn_probability"] for answer in native] == expected
    assert [answer["churn_probability"] for answer in v1["predictions"]] == expected
    assert (oip["id"], oip["model_name"], oip["model_version"]) == ("q", "churn", "0123456789ab")
    assert len(set(expected)) > 150


BAD: list[dict[str, Any]] = [
    {"content": b"{bad"},
    # detected only when the handler gets the bytes: a JSON reader uses the second key without an error
    {"content": b'{"user_id": 1, "user_id": 2}', "headers": {"Content-Type": "application/json"}},
    {"json": {"user_id": True}},
    {"json": {"instances": []}},
    {"json": {"instances": [{"user_id": 1}] * 501}},
    {"json": v2([1.5])},
    {"data": {"user_id": "1"}},
]
BAD_PLACES = range(3, 64, 9)


def test_bad_requests_do_not_affect_others_in_the_batch(served: Running) -> None:
    alone = [served.post("/predictions/churn", json={"user_id": i}).content for i in range(1, 58)]
    before = len(served.batch_sizes())
    mixed: list[dict[str, Any]] = [{"json": {"user_id": i}} for i in range(1, 58)]
    for place, bad in zip(BAD_PLACES, BAD, strict=True):
        mixed.insert(place, bad)

    async def ask_all() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(
            limits=limits, timeout=30, trust_env=False, headers=served.headers
        ) as client:
            url = served.server.inference + "/predictions/churn"
            return await asyncio.gather(*(client.post(url, **request) for request in mixed))

    answers = asyncio.run(ask_all())
    refused = [answers[place] for place in BAD_PLACES]
    answered = [answer for place, answer in enumerate(answers) if place not in BAD_PLACES]
    assert [answer.status_code for answer in refused] == [400] * 7
    assert all(set(answer.json()) == {"error"} for answer in refused)
    assert all(answer.headers["content-type"] == "application/json" for answer in answers)
    assert [answer.content for answer in answered] == alone
    assert max(served.batch_sizes()[before:]) > 1, "no two requests travelled together"


def test_an_unknown_customer(served: Running) -> None:
    alone = served.post("/predictions/churn", json={"user_id": UNKNOWN})
    assert alone.status_code == 404
    assert alone.json() == {"user_id": UNKNOWN, "error": "unknown user_id", "churn_probability": None}
    assert served.post("/v2/models/churn/infer", json=v2([1, UNKNOWN])).status_code == 404


def test_the_client_finds_the_running_server(served: Running) -> None:
    record = running(served.files)
    assert record["inference"] == served.server.inference
    assert psutil.Process(record["pid"]).name() == "java"
    known, unknown = served.predict(1, UNKNOWN)
    assert 0 < known["churn_probability"] < 1
    assert unknown["error"] == "unknown user_id"
    with pytest.raises(ServingError, match=r"HTTP 400: instances\[0\]\.user_id: must be an integer"):
        served.predict("one")


def test_the_server_needs_its_tokens(served: Running) -> None:
    listening = {
        connection.laddr.ip
        for process in _tree(served.server.pid)
        for connection in process.connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
    for url in (served.server.inference + "/ping", served.server.management + "/models"):
        for headers in ({}, {"authorization": "Bearer guessed"}):
            assert httpx.get(url, headers=headers, trust_env=False).status_code == 400
    # the gateway's inference token is not valid for management
    assert httpx.get(served.server.management + "/models", headers=served.headers).status_code == 400
    key_file = Path(running(served.files)["key_file"])
    assert (key_file.stat().st_mode & 0o777, key_file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert (
        "ts_inference_requests_total" in httpx.get(served.server.metrics + "/metrics", trust_env=False).text
    )


def test_no_archive_can_be_added(served: Running, bundle: ServedBundle) -> None:
    """Not without a token, and with it neither from outside of the store nor from inside."""
    with httpx.Client(
        base_url=served.server.management,
        headers=Tokens.headers(served.server.tokens.management),
        trust_env=False,
    ) as client:
        for url in (f"file://{bundle.archive}", str(bundle.archive), "../tiny.mar", "tiny.mar"):
            answer = client.post("/models", params={"url": url, "model_name": "other"})
            assert answer.status_code in (400, 404, 405), answer.text
        assert [model["modelName"] for model in client.get("/models").json()["models"]] == ["churn"]


def test_logs_contain_no_id_and_no_feature_value(served: Running) -> None:
    served.post("/predictions/churn", json={"user_id": 123123123})
    served.post("/predictions/churn", content=b'{"user_id": 456456456')
    answer = served.post("/predictions/churn", json={"user_id": 3}).json()
    written = "".join(file.read_text() for file in (served.files.serving / "logs").glob("*.log"))
    for secret in ("123123123", "456456456", str(answer["features"]["tenure_months"]), "u_"):
        assert secret not in written


def test_a_second_server_runs_beside_the_first_and_stops_by_itself(
    served: Running, bundle: ServedBundle, tmp_path: Path
) -> None:
    files = files_of(tmp_path)
    with TorchServe(ServingConfig(), bundle.archive, bundle.environment, files) as second:
        processes = _tree(second.pid)
        assert len(processes) == 2
        scratch = Path(processes[0].cwd())
        theirs = predict(second.inference, "churn", [1], second.tokens.inference)
        assert theirs == served.predict(1)
        with pytest.raises(ServingError, match=r"serving\.inference_port: port \d+ .*in use"):
            taken = ServingConfig(inference_port=int(second.inference.rpartition(":")[2]))
            TorchServe(taken, bundle.archive, bundle.environment, files).__enter__()
    assert not any(process.is_running() for process in processes)
    assert not scratch.exists()
    with pytest.raises(ServingError, match="no server runs"):
        running(files)
    assert served.predict(1)


PARENT = """
import json, sys, time
from pathlib import Path
from core.workspace import Workspace
from serving.config import ServingConfig
from serving.torchserve.server import TorchServe
archive, files, environment = Path(sys.argv[1]), Workspace(Path(sys.argv[2])), json.load(sys.stdin)
with TorchServe(ServingConfig(), archive, environment, files) as server:
    print(server.pid, flush=True)
    time.sleep(300)
"""


@pytest.mark.slow  # test_supervisor.py asserts it of TorchServe behind its supervisor
def test_kill_9_of_the_parent_leaves_no_process(bundle: ServedBundle, tmp_path: Path) -> None:
    files = files_of(tmp_path)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(bundle.archive), str(files.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdin is not None and parent.stdout is not None
    parent.stdin.write(json.dumps(bundle.environment).encode())
    parent.stdin.close()
    try:
        processes = _tree(int(parent.stdout.readline()))
        assert len(processes) == 2
        scratch = Path(processes[0].cwd())
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    _, left = psutil.wait_procs(processes, timeout=60)
    assert not left
    # the reaper removes the files after the last process has ended
    within(5, lambda: not scratch.exists() and not (files.serving / "server.json").exists())


def _tree(pid: int) -> list[psutil.Process]:
    leader = psutil.Process(pid)
    return [leader, *leader.children(recursive=True)]
