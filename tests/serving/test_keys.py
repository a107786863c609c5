"""API keys: their validity, scopes and quotas, and rotation without a refused request."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from core.errors import ServingError
from serving.client import accepts
from serving.config import GatewayConfig, ServingConfig
from serving.gateway.envoy.rate_limit import request_cost
from serving.gateway.key_use import KeyUse
from serving.gateway.keys import SCOPES, Key, Keys, digest
from serving.gateway.process import Gateway
from support.served_bundle import files_of
from support.waits import within

NOW = datetime.now(UTC)
BODY = {"user_id": 1}
PREDICT, EXPLAIN = "/predictions/churn", "/v1/models/churn:explain"


@contextmanager
def gateway(folder: Path, config: GatewayConfig | None = None) -> Iterator[Gateway]:
    """Envoy without a server. A key is checked first; an accepted request is then a 503."""
    with Gateway(config or GatewayConfig(), ServingConfig(), files_of(folder)) as ours:
        yield ours


def status(ours: Gateway, key: str, path: str = "/v2", **request: object) -> int:
    headers = {"x-api-key": key, **request.pop("headers", {})}  # type: ignore[dict-item]
    method = "POST" if request else "GET"
    return httpx.request(method, ours.url + path, headers=headers, trust_env=False, **request).status_code  # type: ignore[arg-type]


def many(url: str, keys: Sequence[str], at_once: int = 32) -> Counter[int]:
    """Send one GET with each key over several connections; return status -> number of answers."""
    place, found = urlsplit(url), Counter[int]()

    async def client(mine: Sequence[str]) -> None:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        for key in mine:
            writer.write(f"GET /v2 HTTP/1.1\r\nHost: churn\r\nx-api-key: {key}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
            found[int(head.split()[1])] += 1
        writer.close()

    async def all_keys() -> None:
        await asyncio.gather(*(client(keys[number::at_once]) for number in range(at_once)))

    asyncio.run(all_keys())
    return found


def test_ten_thousand_keys_have_limits_of_their_own(tmp_path: Path) -> None:
    """Each key has a quota of one request in 1,000 s. Requests of other keys do not give it a second one."""
    texts = [f"key-{number:05}" for number in range(10_000)]
    keys = [Key(text, digest(text), "", requests_per_s=0.001) for text in texts]
    with gateway(tmp_path, GatewayConfig(requests_per_s=1, burst=1000)) as ours:
        ours.serve({}, keys)
        within(20, lambda: status(ours, texts[0]) == 200)
        assert many(ours.url, texts[1:]) == {200: 9_999}
        assert many(ours.url, texts) == {429: 10_000}
        assert many(ours.url, texts[:100]) == {429: 100}


def test_too_many_requests_of_one_key_are_refused(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    eager, other = keys.add("eager", NOW), keys.add("other", NOW)
    with gateway(tmp_path, GatewayConfig(requests_per_s=1, burst=5)) as ours:
        ours.serve({}, keys.all())
        within(5, lambda: status(ours, other) == 200)
        answers = many(ours.url, [eager] * 40)
        assert 5 <= answers[200] <= 10 and answers[200] + answers[429] == 40
        refused = httpx.get(ours.url + "/v2", headers={"x-api-key": eager}, trust_env=False)
        if refused.status_code == 429:  # otherwise the next second has begun
            assert refused.headers["retry-after"] == "1"
        assert status(ours, other) == 200


def test_a_key_may_have_its_own_quota(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    slow, normal = keys.add("slow", NOW, requests_per_s=10), keys.add("normal", NOW)
    with gateway(tmp_path, GatewayConfig(requests_per_s=1000, burst=2000)) as ours:
        ours.serve({}, keys.all())
        within(5, lambda: status(ours, normal) == 200)
        answers = many(ours.url, [slow] * 100)
        assert 20 <= answers[200] <= 40, "two seconds of its quota at once, then ten a second"
        assert answers[200] + answers[429] == 100
        assert many(ours.url, [normal] * 200) == {200: 200}
    config = GatewayConfig(requests_per_s=1000, burst=2000)
    assert [
        request_cost(Key("k", digest("k"), "", requests_per_s=quota), config) for quota in (None, 500, 2000)
    ] == [
        1000,
        2000,
        500,
    ]


def test_attempts_with_unknown_keys_are_limited_and_do_not_affect_known_keys(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    known, fresh = keys.add("known", NOW), keys.add("fresh", NOW)
    with gateway(tmp_path) as ours:
        ours.serve({}, keys.all())
        within(5, lambda: status(ours, known) == 200)
        guesses = many(ours.url, [f"guess-{number}" for number in range(5000)])
        assert guesses[401] < 200 and guesses[429] > 4800
        refused = httpx.get(ours.url + "/v2", headers={"x-api-key": "guess"}, trust_env=False)
        if refused.status_code == 429:  # otherwise the next second has begun
            assert refused.headers["retry-after"] == "1"
        assert many(ours.url, [known] * 50) == {200: 50}
        within(5, lambda: status(ours, fresh) == 200)


def test_a_key_expires(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    now = datetime.now(UTC)
    ends, ended = keys.add("ends", now, now + timedelta(seconds=2)), keys.add("ended", now, now)
    good = keys.add("good", now, now + timedelta(days=1))
    with gateway(tmp_path) as ours:
        ours.serve({}, keys.all())
        within(5, lambda: status(ours, good) == 200)
        assert status(ours, ended) == 401
        within(5, lambda: status(ours, ends) == 401)
        refused = httpx.get(ours.url + "/v2", headers={"x-api-key": ends}, trust_env=False)
        assert "expired" in refused.json()["error"]


def test_scopes_limit_the_requests_of_a_key(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    every = {scope: keys.add(scope, NOW, scopes=[scope]) for scope in SCOPES}
    served = 503  # the gateway has no server in this test
    named = {"x-churn-variant": "canary"}
    with gateway(tmp_path) as ours:
        ours.serve({}, keys.all())
        within(5, lambda: status(ours, every["predict"]) == 200)
        for scope, predicts, explains, chooses in (
            ("predict", served, 403, 403),
            ("explain", 403, served, 403),
            ("variant", 403, 403, 403),
        ):
            assert status(ours, every[scope], PREDICT, json=BODY) == predicts
            assert status(ours, every[scope], EXPLAIN, json={"instances": [BODY]}) == explains
            assert status(ours, every[scope], PREDICT, json=BODY, headers=named) == chooses
            assert status(ours, every[scope]) == 200
        refused = httpx.post(ours.url + EXPLAIN, headers={"x-api-key": every["predict"]}, json={})
        assert refused.json() == {"error": "this API key has no scope `explain`"}


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"user_id": 1, "parameters": {"reasons": 3}}', {}),
        (b'{"user_id": 1, "parameters": {"\\u0072easons": 3}}', {}),
        (b'{"inputs": [], "outputs": [{"name": "explanation"}]}', {}),
        (b"\x1f\x8b anything", {"content-encoding": "gzip"}),
        (b"\x01 a compressed message", {"content-type": "application/grpc"}),
        (b"\x00\x00\x00\x00\x09 ... reasons", {"content-type": "application/grpc"}),
    ],
)
def test_a_body_cannot_request_reasons_without_the_scope(
    shared: tuple[Gateway, dict[str, str]], body: bytes, headers: dict[str, str]
) -> None:
    ours, keys = shared
    path = "/inference.GRPCInferenceService/ModelInfer" if "content-type" in headers else PREDICT

    def answer(name: str) -> httpx.Response:
        return httpx.post(ours.url + path, content=body, headers={"x-api-key": keys[name], **headers})

    refused, taken = answer("predict"), answer("both")
    if "content-type" in headers:
        assert refused.headers["grpc-status"] == "7"
        assert taken.headers["grpc-status"] != "7"
    else:
        assert (refused.status_code, taken.status_code) == (403, 503)


def test_a_long_list_without_reasons_is_accepted(shared: tuple[Gateway, dict[str, str]]) -> None:
    ours, keys = shared
    body = {"instances": [{"user_id": f"Zoë-{number}"} for number in range(1000)]}
    assert status(ours, keys["predict"], "/v1/models/churn:predict", json=body) == 503


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("scopes")
    keys = Keys(folder / "keys.json")
    made = {
        "predict": keys.add("predict", NOW, scopes=["predict"]),
        "both": keys.add("both", NOW, scopes=["predict", "explain"]),
    }
    with gateway(folder) as ours:
        ours.serve({}, keys.all())
        within(5, lambda: status(ours, made["both"]) == 200)
        yield ours, made


def test_a_key_is_rotated_without_a_refused_request(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    old = keys.add("client", NOW, scopes=["predict"], requests_per_s=50)
    with gateway(tmp_path) as ours:
        ours.serve({}, keys.all())
        new = keys.rotate("client", datetime.now(UTC), timedelta(seconds=4))
        ours.serve({}, keys.all())
        within(5, lambda: status(ours, new) == 200)
        assert status(ours, old) == 200, "both keys are valid while clients change to the new one"
        within(8, lambda: status(ours, old) == 401)
        assert status(ours, new) == 200
    first, second = keys.all()
    assert (second.scopes, second.requests_per_s, second.expires) == (("predict",), 50, None)
    assert first.expires is not None
    # the next change removes expired keys
    keys.rotate("client", datetime.now(UTC) + timedelta(days=1), timedelta(days=1))
    assert len(keys.all()) == 2
    keys.revoke("client")
    assert keys.all() == ()
    with pytest.raises(ServingError, match="no valid key"):
        keys.rotate("client", NOW, timedelta(days=1))


def test_the_last_use_of_a_key_is_recorded(tmp_path: Path) -> None:
    keys, files = Keys(tmp_path / "keys.json"), files_of(tmp_path)
    used = keys.add("used", NOW)
    keys.add("never", NOW)
    began = datetime.now(UTC).replace(microsecond=0)
    with gateway(tmp_path) as ours:
        ours.serve({}, keys.all())
        within(5, lambda: status(ours, used) == 200)
        assert {status(ours, used) for _ in range(20)} == {200}
        use = KeyUse(files)
        within(15, lambda: "used" in use.last())
        assert set(use.last()) == {"used"}
        assert datetime.fromisoformat(use.last()["used"]) >= began
        assert len(use.log.read_text().splitlines()) == 1, "a line a key and some minutes, not a request"
        assert used not in use.log.read_text()
        before = use.last()
        use.fold()
        ours.admin.reopen_logs()
        assert use.last() == before


def test_a_list_without_the_newer_fields_is_read(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keys = Keys(file)
    keys.add("old", NOW)
    content = json.loads(file.read_text())
    content["keys"] = [{name: content["keys"][0][name] for name in ("name", "sha256", "created")}]
    file.write_text(json.dumps(content))
    assert keys.all()[0].scopes == SCOPES
    content["keys"][0]["scopes"] = ["everything"]
    file.write_text(json.dumps(content))
    with pytest.raises(ServingError, match="not a list of keys"):
        keys.all()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"scopes": ["all"]}, "scopes: one or more of predict"),
        ({"requests_per_s": 0}, "requests_per_s: above 0"),
    ],
)
def test_a_bad_option_is_named(tmp_path: Path, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ServingError, match=complaint):
        Keys(tmp_path / "keys.json").add("one", NOW, **options)  # type: ignore[arg-type]


def test_a_client_waits_until_the_gateway_accepts_a_new_key(tmp_path: Path) -> None:
    """`churn keys rotate` shows a key, and replaces the workspace's own, only when it can be used."""
    keys = Keys(tmp_path / "keys.json")
    keys.add("client", NOW)
    with gateway(tmp_path) as ours:
        ours.serve({}, keys.all())
        server = {"gateway": ours.url, "model": "churn"}
        new = keys.rotate("client", datetime.now(UTC), timedelta(days=1))
        assert not accepts(server, new, within_s=0.5), "the gateway has the list from before"
        ours.serve({}, keys.all())
        assert accepts(server, new)
