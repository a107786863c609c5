"""However a request names a customer, the same variant answers; gRPC is retried and counted as HTTP is."""

import gzip
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from rollout.observers.envoy_stats import between, totals
from support.servers.upstreams import Split, split

USERS = [*range(60), 2**40, -7]
NAMES = ["Zoë-1", "a/b", 'with "quotes"', "back\\slash", "line\nbreak", "𝄞-2", "tab\t", "é" * 40, "x", "u_1"]
INFER = "/inference.GRPCInferenceService/ModelInfer"
METADATA = {"name": "churn", "versions": ["v1"], "platform": "", "inputs": [], "outputs": []}
TENSOR = {"name": "user_id", "shape": [1], "datatype": "INT64"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Split]:
    with split(tmp_path_factory.mktemp("spellings")) as made:
        made.gateway.serve(METADATA, ())
        made.gateway.set_canary_weight(50)
        yield made


@pytest.fixture(scope="module")
def plain(both: Split) -> dict[Any, str]:
    """The variant of each customer, by the simplest request."""
    found: dict[Any, str] = {user: both.who(user) for user in (*USERS, *NAMES)}
    assert {found[user] for user in USERS} == {"stable", "canary"}
    return found


def who(client: httpx.Client, path: str, content: bytes, **headers: str) -> str:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = client.post(path, content=content, headers=named)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["who"])


def escaped(name: str) -> str:
    """JSON in which every character is a code, as no writer and every reader has it."""
    units = name.encode("utf-16-be")
    return '"' + "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)) + '"'


@pytest.mark.parametrize(
    "spelled",
    [
        json.dumps,  # as Python does: \u00eb
        lambda name: json.dumps(name, ensure_ascii=False),  # as JavaScript does
        lambda name: json.dumps(name).replace("/", "\\/"),  # as PHP does
        escaped,
    ],
    ids=["python", "javascript", "php", "all codes"],
)
def test_json_may_spell_a_customer_in_any_way(
    both: Split, plain: dict[Any, str], spelled: Callable[[str], str]
) -> None:
    for name in NAMES:
        assert (
            who(both.client, "/predictions/churn", f'{{"user_id": {spelled(name)}}}'.encode()) == plain[name]
        )


@pytest.mark.parametrize(
    "body",
    [
        lambda user: {"parameters": {"user_id": 1, "data": [2]}, "user_id": user},
        lambda user: {
            "parameters": {"reasons": 1},
            "instances": [{"features": {"user_id": 3}, "user_id": user}],
        },
        lambda user: {"instances": {"user_id": user}},
        lambda user: {"parameters": {"data": 1}, "inputs": [{**TENSOR, "data": [user]}]},
        lambda user: {"outputs": [{"name": "data"}], "inputs": [{"data": [[user]], **TENSOR}]},
    ],
)
def test_fields_before_the_customer_change_nothing(
    both: Split, plain: dict[Any, str], body: Callable[[int], Any]
) -> None:
    found = {u: who(both.client, "/v2/models/churn/infer", json.dumps(body(u)).encode()) for u in USERS}
    assert found == {user: plain[user] for user in USERS}


def raw_deflate(content: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(content) + stream.flush()


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("gzip", lambda content: gzip.compress(content, compresslevel=0)),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
    ],
    ids=["gzip", "gzip, stored", "deflate", "raw deflate"],
)
def test_a_compressed_body_names_the_same_customer(
    both: Split, plain: dict[Any, str], encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    noise = np.random.default_rng(1)
    for user in USERS:
        # of fixed codes where it is short, of codes of its own where it is long
        filler = "".join(map(chr, noise.integers(97, 123, 3000))) if user % 2 else ""
        body = json.dumps({"parameters": {"hint": filler}, "user_id": user}).encode()
        sent = who(both.client, "/predictions/churn", compress(body), content_encoding=encoding)
        assert sent == plain[user]


def test_raw_tensors_name_the_same_customer(both: Split, plain: dict[Any, str]) -> None:
    def binary(datatype: str, content: bytes) -> str:
        tensor = {**TENSOR, "datatype": datatype, "parameters": {"binary_data_size": len(content)}}
        text = json.dumps({"inputs": [tensor]}).encode()
        length = {"inference_header_content_length": str(len(text))}
        return who(both.client, "/v2/models/churn/infer", text + content, **length)

    for user in USERS:
        assert binary("INT64", np.array([user, 7]).tobytes()) == plain[user]
    for name in NAMES:
        content = name.encode()
        assert binary("BYTES", struct.pack("<I", len(content)) + content) == plain[name]


def field(number: int, content: bytes) -> bytes:
    length = len(content)
    size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return bytes([number << 3 | 2]) + size + content


def message(user: int, raw: bool = True, version: bytes = b"") -> bytes:
    """A ModelInferRequest with raw or typed contents."""
    number = user % 2**64
    varint = bytearray()
    while number >= 128:
        varint.append(number & 127 | 128)
        number >>= 7
    varint.append(number)
    typed = b"" if raw else field(5, field(3, bytes(varint)))
    tensor = field(1, b"user_id") + field(2, b"INT64") + field(3, b"\x01") + typed
    values = field(7, np.array([user]).tobytes()) if raw else b""
    return field(1, b"churn") + (field(2, version) if version else b"") + field(5, tensor) + values


@pytest.fixture(scope="module")
def channel(both: Split) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(both.gateway.url.removeprefix("http://")) as made:
        yield made


def over_grpc(channel: grpc.Channel, content: bytes, compression: Any = None) -> str:
    call = channel.unary_unary(INFER)
    return str(json.loads(call(content, timeout=20, compression=compression))["who"])


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_grpc_names_the_same_customer(
    both: Split, plain: dict[Any, str], channel: grpc.Channel, raw: bool, compression: Any
) -> None:
    # gRPC leaves a message as it is that compression would not make smaller
    tail = field(3, b"x" * 120) if compression else b""
    found = {user: over_grpc(channel, message(user, raw) + tail, compression) for user in USERS}
    assert found == {user: plain[user] for user in USERS}


def test_who_names_stable_s_version_is_answered_by_stable(both: Split, channel: grpc.Channel) -> None:
    assert {over_grpc(channel, message(user, version=b"v1")) for user in USERS} == {"stable"}
    versions = "/v2/models/churn/versions/v1/infer"
    body = json.dumps({"inputs": [{**TENSOR, "data": [1]}]}).encode()
    assert {who(both.client, versions, body) for _ in range(20)} == {"stable"}


@pytest.mark.parametrize("status", [500, 503])
def test_whom_the_canary_refuses_over_grpc_stable_answers_and_it_counts(
    both: Split, plain: dict[Any, str], channel: grpc.Channel, status: int
) -> None:
    both.canary.status = status
    try:
        before = totals(both.gateway)
        assert {over_grpc(channel, message(user)) for user in USERS} == {"stable"}
        after = totals(both.gateway)
    finally:
        both.canary.status = 200
    canary, stable = (between(before, after, variant, 250) for variant in ("canary", "stable"))
    theirs = sum(plain[user] == "canary" for user in USERS)
    assert (canary.requests, canary.errors) == (theirs, theirs)
    assert (stable.requests, stable.errors) == (len(USERS) - theirs, 0)


def test_a_refusal_over_grpc_is_no_success_to_whom_reads_envoy_s_numbers(
    both: Split, channel: grpc.Channel
) -> None:
    pattern = r"^cluster\.(stable|canary)\.grpc\.(0|3|14)$"
    before = both.gateway.stats(pattern)
    both.canary.status = both.stable.status = 422
    try:
        with pytest.raises(grpc.RpcError) as refused:
            over_grpc(channel, message(1))
    finally:
        both.canary.status = both.stable.status = 200
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    after = both.gateway.stats(pattern)
    grown = {name: after[name] - before.get(name, 0) for name in after if name != "histograms"}
    assert sum(value for name, value in grown.items() if name.endswith("grpc.3")) == 1
    assert sum(value for name, value in grown.items() if name.endswith("grpc.0")) == 0
