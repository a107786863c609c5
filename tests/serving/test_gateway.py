"""The gateway with a real TorchServe: authentication, refusals, and what clients cannot reach."""

import hashlib
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import pytest

from churn.settings import load_settings
from core.errors import ServingError
from serving.client import key_for, predict, running
from serving.config import GatewayConfig
from serving.gateway.keys import Keys, digest
from serving.torchserve.tokens import Tokens
from support.served_bundle import ServedBundle
from support.servers.stack import Stack, supervisor_of, ticking
from support.waits import within

BODY = {"user_id": 1}


@pytest.fixture(scope="module")
def stack(bundle: ServedBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = supervisor_of(bundle, tmp_path_factory.mktemp("gateway"))
    with made.supervisor, ticking(made.supervisor):
        yield made


def test_without_a_valid_key_every_path_is_a_401(stack: Stack) -> None:
    for headers in (
        {},
        {"x-api-key": "guessed"},
        {"authorization": "Bearer guessed"},
        {"x-api-key": "x" * 9999},
    ):
        for method, path in (
            ("POST", "/predictions/churn"),
            ("GET", "/v2/models/churn"),
            ("GET", "/nowhere"),
        ):
            answer = httpx.request(method, stack.url + path, headers=headers, json=BODY, trust_env=False)
            assert answer.status_code == 401, (headers, path)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert "API key" in answer.json()["error"]
    for headers in ({"x-api-key": stack.key}, {"authorization": f"Bearer {stack.key}"}):
        answer = httpx.post(stack.url + "/predictions/churn", headers=headers, json=BODY, trust_env=False)
        assert answer.status_code == 200
    # load balancers have no key; these answers contain nothing else
    assert httpx.get(stack.url + "/v2/health/live", trust_env=False).json() == {"live": True}
    assert httpx.get(stack.url + "/v2/health/ready", trust_env=False).json() == {"ready": True}


def test_health_needs_no_key_and_follows_the_worker(stack: Stack) -> None:
    def answer(path: str) -> tuple[int, object]:
        got = httpx.get(stack.url + path, trust_env=False)
        return got.status_code, got.json()

    assert answer("/livez") == (200, {"live": True})
    assert answer("/readyz") == answer("/healthz") == (200, {"ready": True})
    gateway, upstream = stack.supervisor.gateway, stack.supervisor.model.upstream
    gateway.set_upstream("stable", None)
    try:  # the gateway is alive, and no server can answer
        within(5, lambda: answer("/readyz") == (503, {"ready": False}))
        assert answer("/healthz") == (503, {"ready": False})
        assert answer("/livez") == (200, {"live": True})
    finally:
        gateway.set_upstream("stable", upstream)
    within(10, lambda: answer("/readyz")[0] == 200)


def test_keys_are_added_and_revoked_while_the_gateway_runs(stack: Stack) -> None:
    keys = {name: stack.keys.add(name, datetime.now(UTC)) for name in ("short", "other")}

    def status(name: str) -> int:
        return stack.post("/predictions/churn", json=BODY, headers={"x-api-key": keys[name]}).status_code

    within(5, lambda: status("short") == status("other") == 200)
    stack.keys.revoke("short")
    within(5, lambda: status("short") == 401)
    assert status("other") == 200


def test_lua_hashes_like_the_standard_library(stack: Stack) -> None:
    """Keys of all lengths around the block size of SHA-256 are accepted, so their digests are those of
    hashlib.
    """
    names = [f"length-{length}" for length in range(1, 140)]
    entries = json.loads(stack.files.api_keys.read_text())["keys"]
    texts = {name: (name * 30)[: int(name[7:])] for name in names}
    for name, text in texts.items():
        entries.append({"name": name, "sha256": hashlib.sha256(text.encode()).hexdigest(), "created": ""})
    before = stack.files.api_keys.read_text()
    stack.files.api_keys.write_text(json.dumps({"keys": entries}))
    try:

        def status(text: str) -> int:
            return stack.ask("GET", "/v2/models/churn", headers={"x-api-key": text}).status_code

        within(5, lambda: status(texts[names[-1]]) == 200)
        assert {status(text) for text in texts.values()} == {200}
        assert {status(text + "x") for text in list(texts.values())[60:70]} == {401}
    finally:
        stack.files.api_keys.write_text(before)


def test_management_and_metrics_cannot_be_reached(stack: Stack) -> None:
    paths = ("/models", "/models/churn", "/metrics", "/ping", "/api-description", "/token?type=inference")
    tricks = ("/predictions/../models", "/predictions/%2e%2e/models", "//models", "/predictions/churn/1.0")
    for path in (*paths, *tricks, "/stats", "/quitquitquit"):
        for method in ("GET", "POST", "PUT", "DELETE"):
            assert stack.ask(method, path).status_code in (400, 404), (method, path)
    assert stack.ask("GET", "/predictions/churn").status_code == 405
    # Envoy's admin API, which can stop it, is a private socket file
    assert httpx.post(stack.supervisor.gateway.metrics + "/quitquitquit", trust_env=False).status_code == 404
    assert stack.supervisor.gateway.admin.socket.stat().st_mode & 0o777 == 0o600


def test_only_the_gateway_can_be_reached_from_elsewhere(bundle: ServedBundle, tmp_path: Path) -> None:
    address = _own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    # another loopback address: all other addresses refuse connections; TLS is on
    made = supervisor_of(bundle, tmp_path, GatewayConfig(host=address))
    with made.supervisor:
        assert made.url.startswith("https://")
        assert made.post("/predictions/churn", json=BODY).status_code == 200
        model = made.supervisor.model
        for url in (model.management, model.metrics, model.inference, made.supervisor.gateway.metrics):
            port = url.rpartition(":")[2]
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"http://{address}:{port}/models", trust_env=False)
        tree = [psutil.Process(model.pid), *psutil.Process(model.pid).children(recursive=True)]
        listening = {
            c.laddr.ip.removeprefix("::ffff:")
            for p in tree
            for c in p.connections("inet")
            if c.status == "LISTEN"
        }
        assert listening == {"127.0.0.1"}


def test_an_archive_from_outside_the_store_is_refused_with_the_token_too(
    stack: Stack, bundle: ServedBundle
) -> None:
    model = stack.supervisor.model
    with httpx.Client(
        base_url=model.management, headers=Tokens.headers(model.tokens.management), trust_env=False
    ) as client:
        before = client.get("/models").json()
        answer = client.post("/models", params={"url": bundle.archive.as_uri(), "model_name": "second"})
        assert answer.status_code in (400, 404, 405)
        assert client.get("/models").json() == before
    assert httpx.get(model.management + "/models", trust_env=False).status_code == 400  # without the token


def test_readiness_and_metadata_are_completed(stack: Stack) -> None:
    assert stack.ask("GET", "/v1/models/churn").json() == {"name": "churn", "ready": True}
    assert stack.ask("GET", "/v2/models/churn/ready").json() == {"name": "churn", "ready": True}
    assert stack.ask("GET", "/v1/models").json() == {"models": ["churn"]}
    assert stack.ask("GET", "/v2").json()["name"] == "churn"
    metadata = stack.ask("GET", "/v2/models/churn").json()
    tensor = {"name": "user_id", "shape": [2], "datatype": "INT64", "data": [1, 2]}
    answer = stack.post("/v2/models/churn/infer", json={"inputs": [tensor]}).json()
    assert metadata["versions"] == [answer["model_version"]]
    assert [(t["name"], t["datatype"]) for t in metadata["inputs"]] == [("user_id", "INT64")]
    declared = {t["name"]: t["datatype"] for t in metadata["outputs"]}
    assert declared == {t["name"]: t["datatype"] for t in answer["outputs"]}


def test_the_request_id_is_returned(stack: Stack) -> None:
    given = stack.post("/predictions/churn", json=BODY, headers={"x-request-id": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"
    made = stack.post("/predictions/churn", json=BODY)
    assert len(made.headers["x-request-id"]) >= 16
    assert given.headers["content-type"] == "application/json"


def test_a_large_body_is_refused(stack: Stack) -> None:
    answer = stack.post("/predictions/churn", content=b" " * 1_100_000)
    assert answer.status_code == 413
    assert "serving.max_request_bytes" in answer.json()["error"]


def test_the_access_log_names_the_key_and_never_the_customer(stack: Stack) -> None:
    stack.post("/predictions/churn?user_id=987654321", json={"user_id": 123456789})
    stack.ask("GET", "/customers/987654321")
    stack.post("/predictions/churn", json=BODY, headers={"x-request-id": "in-the-log"})
    log = stack.files.serving / "logs" / "gateway.log"
    within(15, lambda: "in-the-log" in log.read_text())
    text = log.read_text()
    entry = next(json.loads(line) for line in text.splitlines() if "in-the-log" in line)
    assert (entry["key"], entry["route"], entry["status"], entry["slot"]) == (
        "this-workspace",
        "native",
        200,
        "stable",
    )
    for secret in (
        "987654321",
        "123456789",
        stack.key,
        digest(stack.key),
        stack.supervisor.model.tokens.inference,
    ):
        assert secret not in text


def test_prometheus_reads_the_gateway_s_metrics(stack: Stack) -> None:
    stack.post("/predictions/churn", json=BODY)
    text = httpx.get(stack.supervisor.gateway.metrics + "/metrics", trust_env=False).text
    assert 'envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="stable"}' in text
    assert "envoy_http_downstream_rq_time_bucket" in text


def test_the_client_of_the_workspace_has_the_first_key(stack: Stack) -> None:
    record = running(stack.files)
    assert (record["state"], record["inference"]) == ("ready", stack.url)
    key = key_for(record, stack.files)
    assert predict(record["inference"], record["model"], [1], key)[0]["churn_probability"] > 0
    with pytest.raises(ServingError, match="HTTP 401: an API key is needed"):
        predict(record["inference"], record["model"], [1])
    assert (stack.files.api_key.stat().st_mode & 0o777, stack.files.api_keys.stat().st_mode & 0o777) == (
        0o600,
    ) * 2
    assert stack.key not in stack.files.api_keys.read_text()


def test_requests_split_by_weight_without_a_restart(stack: Stack) -> None:
    gateway, model = stack.supervisor.gateway, stack.supervisor.model
    pid = gateway.pid
    gateway.set_upstream("canary", model.upstream)

    def canary_share() -> float:
        before = _count(gateway.metrics, "canary")
        for user in range(1, 61):  # a single customer would always get the same variant
            assert stack.post("/predictions/churn", json={"user_id": user}).status_code == 200
        return (_count(gateway.metrics, "canary") - before) / 60

    assert canary_share() == 0
    gateway.set_canary_weight(50)
    assert 0.2 < canary_share() < 0.8
    gateway.set_canary_weight(0)
    assert canary_share() == 0
    gateway.set_upstream("canary", None)
    assert gateway.pid == pid


def _count(metrics: str, slot: str) -> float:
    wanted = f'envoy_cluster_upstream_rq_completed{{envoy_cluster_name="{slot}"}} '
    for line in httpx.get(metrics + "/metrics", trust_env=False).text.splitlines():
        if line.startswith(wanted):
            return float(line.removeprefix(wanted))
    return 0.0


def test_a_list_of_keys_that_others_can_read_is_refused(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    keys.add("one", datetime.now(UTC))
    with pytest.raises(ServingError, match="the name is in use"):
        keys.add("one", datetime.now(UTC))
    with pytest.raises(ServingError, match="names of keys: one"):
        keys.revoke("two")
    with pytest.raises(ServingError, match="a name is 1 to 64"):
        keys.add("no good", datetime.now(UTC))
    (tmp_path / "keys.json").chmod(0o644)
    with pytest.raises(ServingError, match="chmod 600"):
        keys.all()


def test_keys_can_be_off_on_loopback_only() -> None:
    assert not GatewayConfig(keys=False).keys
    with pytest.raises(ValueError, match="keys cannot be off on 0"):
        GatewayConfig(keys=False, host="0.0.0.0")  # noqa: S104


def test_the_error_for_a_port_in_use_names_the_setting(bundle: ServedBundle, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        made = supervisor_of(bundle, tmp_path, GatewayConfig(port=port))
        with pytest.raises(
            ServingError, match=rf"gateway\.port: port {port} on 127.0.0.1: Address already in use"
        ):
            made.supervisor.__enter__()


def test_churn_serve_has_a_constant_port() -> None:
    """Clients and load balancers are configured with it. The default of the class lets the system choose."""
    assert load_settings().gateway.port == 8080
    assert GatewayConfig().port == 0


def _own_address() -> str | None:
    addresses = (
        address.address
        for entries in psutil.net_if_addrs().values()
        for address in entries
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    )
    return next(addresses, None)
