"""Requests that a stranger, a broken client or an attacker might send: the engine of the fuzzers.

`requests(seed)` is an endless, seeded stream that visits every kind in turn; `json_values()` are hypothesis
strategies for what may stand where a value is expected. Nothing here says what the answer has to be.
"""

import gzip
import itertools
import json
import random
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

MODEL = "churn"
NATIVE, V1, V1_EXPLAIN, V2 = (
    f"/predictions/{MODEL}",
    f"/v1/models/{MODEL}:predict",
    f"/v1/models/{MODEL}:explain",
    f"/v2/models/{MODEL}/infer",
)
MEGABYTE = 1 << 20
JSON = {"Content-Type": "application/json"}

ODD_NUMBERS = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1E400", "-0", "-0.0", "0.1", "1e-400", "00", "01",
    "+1", "0x10", "1_000", str(2**63), str(-(2**63) - 1), str(2**64), "9" * 400, "9" * 5000,
    "1" + "0" * 4301, "1.0", "1e0", "12345678901234567890.5",
)  # fmt: skip
ODD_TEXTS = (
    "", " ", "1", "\u0000", "\u202e1", "\u2066x\u2069", "\ufeff1", "\u0661", "١٢٣", "𝟏", "e\u0301",
    "\u200b", "u_" + "0" * 32, "u_" + "0" * 31, "U_" + "0" * 32, "u_" + "g" * 32, "../../etc/passwd",
    "${jndi:ldap://x}", "'; drop table user_features; --", "{{7*7}}", "\r\nX: y", "null", "true", "NaN",
    "__class__", "a" * 300,
)  # fmt: skip
RAW_TEXTS = (
    b'"\\ud800"', b'"\\udfff\\ud800"', b'"\xed\xa0\x80"', b'"\xc0\xaf"', b'"\xff\xfe"', b'"\\u0000"',
    b'"\\x41"', b'"\x00"', b'"\n"', b'"\\', b'"unclosed', b"'1'", b"undefined", b"None", b"True",
)  # fmt: skip
CONTENT_TYPES = (
    "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
    "multipart/form-data; boundary=x", "application/octet-stream", "application/json; charset=utf-16",
    "application/json;", "application/cloudevents+json", "image/png", "*/*", ";;;", "a" * 500,
)  # fmt: skip
PATHS = (
    "/predictions/churn/", "/predictions/churn/1.0", "/predictions/churn/9.9", "/predictions/churn/..",
    "/predictions/../predictions/churn", "/predictions/%2e%2e/models", "//predictions/churn",
    "/predictions//churn", "/predictions/churn%00", "/predictions/churn;a=b",
    "/predictions/churn?user_id=1", "/predictions/CHURN", "/predictions/%63hurn",
    "/predictions/churn%2f..%2f..%2fetc%2fpasswd", "/predictions", "/predictions/none",
    "/explanations/churn", "/v1/models/churn:explain", "/v1/models/churn:destroy",
    "/v1/models/none:predict", "/v1/models/churn", "/v2/models/churn", "/v2/models/churn/versions/1/infer",
    "/v2/models/none/infer", "/v2/health/live/../../../models", "/models", "/models/churn",
    "/models?url=http://127.0.0.1/x.mar", "/api-description", "/ping", "/metrics", "/", "/..", "/%",
    "/%zz", "/?", "/#", "/" + "a" * 3000, "/predictions/churn?" + "x=1&" * 500,
    "http://127.0.0.1/predictions/churn", "*",
)  # fmt: skip


@dataclass(frozen=True)
class Hostile:
    kind: str
    body: bytes
    path: str = NATIVE
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    method: str = "POST"
    chunk: int | None = None
    """Send the body in chunks of this many bytes, without its length."""


def requests(seed: int) -> Iterator[Hostile]:
    """Endless; the same for the same seed."""
    dice = random.Random(seed)
    for make in itertools.cycle(KINDS):
        yield make(dice)


def good(user_id: int, protocol: int) -> Hostile:
    """A request that must be answered, in one of the three protocols."""
    path, body = (
        (NATIVE, {"user_id": user_id}),
        (V1, {"instances": [{"user_id": user_id}]}),
        (V2, _tensor([user_id])),
    )[protocol % 3]
    return Hostile("good", json.dumps(body).encode(), path)


def json_values() -> st.SearchStrategy[Any]:
    """Anything that JSON can hold, the odd leaves often."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.integers(min_value=-(2**70), max_value=2**70)
        | st.floats(allow_nan=True, allow_infinity=True)
        | st.text(max_size=20)
        | st.sampled_from(ODD_TEXTS)
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names(), inner, max_size=4),
        max_leaves=12,
    )


def bodies() -> st.SearchStrategy[bytes]:
    """A body of any protocol with any value anywhere; NaN and lone surrogates as Python writes them."""
    value = json_values()
    tensor = st.fixed_dictionaries(
        {},
        optional={
            "name": st.just("user_id") | value,
            "shape": st.lists(st.integers(-2, 5), max_size=3) | value,
            "datatype": st.sampled_from(["INT64", "BYTES", "FP64", "int64"]) | value,
            "data": st.lists(value, max_size=4) | value,
            "parameters": value,
        },
    )
    instance = st.fixed_dictionaries(
        {}, optional={"user_id": st.integers(1, 200) | value, "features": value, "parameters": value}
    )
    shapes = (
        value
        | instance
        | st.lists(instance | value, max_size=4)
        | st.fixed_dictionaries(
            {"instances": st.lists(instance, max_size=4) | value}, optional={"parameters": value}
        )
        | st.fixed_dictionaries(
            {"inputs": st.lists(tensor, max_size=2) | value}, optional={"id": value, "parameters": value}
        )
    )
    return shapes.map(lambda body: json.dumps(body).encode())


def _names() -> st.SearchStrategy[str]:
    known = (
        "user_id", "instances", "inputs", "features", "parameters", "reasons", "data", "shape", "datatype",
        "name", "id", "body", "__proto__", "tenure_months", "customer_segment",
    )  # fmt: skip
    return st.sampled_from(known) | st.text(max_size=8)


def _valid(dice: random.Random) -> tuple[str, Any]:
    ids = [dice.randint(1, 205) for _ in range(dice.randint(1, 4))]
    return dice.choice(
        [
            (NATIVE, {"user_id": ids[0]}),
            (NATIVE, [{"user_id": i} for i in ids]),
            (V1, {"instances": [{"user_id": i} for i in ids]}),
            (V2, {**_tensor(ids), "id": "q"}),
            (
                NATIVE,
                {"user_id": ids[0], "features": {"tenure_months": 3.5}, "parameters": {"features": True}},
            ),
            (V1, {"instances": [{"user_id": ids[0]}], "parameters": {"reasons": 1}}),
        ]
    )


def _tensor(ids: list[Any]) -> dict[str, Any]:
    return {"inputs": [{"name": "user_id", "shape": [len(ids)], "datatype": "INT64", "data": ids}]}


def _text(dice: random.Random) -> str:
    alphabet = string.printable + "é漢😀\u202e\u0000\u2028"
    return "".join(dice.choices(alphabet, k=dice.randint(0, 30)))


def _odd(dice: random.Random) -> bytes:
    """A value as it is written in a body: JSON, or nearly JSON."""
    return dice.choice(
        [
            lambda: dice.choice(ODD_NUMBERS).encode(),
            lambda: json.dumps(dice.choice(ODD_TEXTS), ensure_ascii=dice.random() < 0.5).encode(),
            lambda: dice.choice(RAW_TEXTS),
            lambda: json.dumps(_text(dice)).encode(),
            lambda: dice.choice(
                [b"null", b"true", b"false", b"[]", b"{}", b"[[]]", b"[1]", b'{"user_id":1}', b""]
            ),
            lambda: json.dumps({_text(dice): _text(dice)}).encode(),
        ]
    )()


def _replaced(dice: random.Random) -> Hostile:
    """A valid body with an odd value at one of its places."""
    path, body = _valid(dice)
    marked = json.dumps(_with_mark(body, dice)).encode()
    return Hostile("value", marked.replace(b'"@"', _odd(dice), 1), path)


def _with_mark(node: Any, dice: random.Random) -> Any:
    if not isinstance(node, dict | list) or not node or dice.random() < 0.25:
        return "@"
    copy: Any = node.copy()
    at = dice.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
    copy[at] = _with_mark(copy[at], dice)
    return copy


def _mutated(dice: random.Random) -> Hostile:
    """A valid body with a few bytes changed, lost, added or doubled."""
    path, body = _valid(dice)
    content = bytearray(json.dumps(body).encode())
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(content) + 1)
        match dice.randrange(5):
            case 0:
                content[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                del content[at : at + dice.randint(1, 8)]
            case 2:
                content[at:at] = dice.choice(
                    [b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\0", b"\xff"]
                )
            case 3:
                content[at:at] = content[at : at + dice.randint(1, 20)]
            case 4:
                del content[at:]
    return Hostile("bytes", bytes(content), path)


def _noise(dice: random.Random) -> Hostile:
    return Hostile("noise", dice.randbytes(dice.choice([0, 1, 2, 7, 100, 5000])), _address(dice))


def _nested(dice: random.Random) -> Hostile:
    depth = dice.choice([50, 500, 990, 1001, 5000, 100_000])
    opened = dice.choice([b"[", b'{"user_id":', b'{"instances":[', b'[{"a":'])
    closed = {b"[": b"]", b'{"user_id":': b"}", b'{"instances":[': b"]}", b'[{"a":': b"}]"}[opened]
    body = opened * depth + b"1" + (closed * depth if dice.random() < 0.7 else b"")
    return Hostile("nested", body[:MEGABYTE], _address(dice))


def _doubled(dice: random.Random) -> Hostile:
    key = dice.choice(["user_id", "instances", "inputs", "parameters", "features", _text(dice)])
    first, second = _odd(dice), dice.choice([b"1", _odd(dice)])
    name = json.dumps(key).encode()
    return Hostile("doubled", b"{%s: %s, %s: %s}" % (name, first, name, second), _address(dice))


def _encoded(dice: random.Random) -> Hostile:
    """A good body in another encoding."""
    text = json.dumps(_valid(dice)[1])
    body = dice.choice(
        [
            lambda: text.encode("utf-16"),
            lambda: text.encode("utf-32"),
            lambda: b"\xef\xbb\xbf" + text.encode(),
            lambda: text.replace("user_id", "user\u200b_id").encode(),
            lambda: text.replace("user_id", "usér_id").encode("latin-1"),
            lambda: text.encode("cp037"),
            lambda: text.encode() + b"\x00",
            lambda: b"\n\n" + text.encode() + b" \t\r\n",
            lambda: text.encode() + text.encode(),
        ]
    )()
    return Hostile("encoding", body, _address(dice))


def _compressed(dice: random.Random) -> Hostile:
    body = gzip.compress(json.dumps(_valid(dice)[1]).encode())
    if dice.random() < 0.1:
        body = gzip.compress(b" " * (4 * MEGABYTE) + b'{"user_id": 1}')
    headers = JSON | {"Content-Encoding": dice.choice(["gzip", "deflate", "identity", "gzip, gzip", "x"])}
    return Hostile("compressed", body, _address(dice), headers)


def _many(dice: random.Random) -> Hostile:
    """Too many customers, or as many as there may be."""
    number = dice.choice([499, 500, 501, 1001, 5000, 20_000])
    path, body = dice.choice(
        [
            (NATIVE, [{"user_id": 1}] * number),
            (V1, {"instances": [{"user_id": i} for i in range(number)]}),
            (V2, _tensor(list(range(number)))),
            (V2, {"inputs": [*_tensor([1])["inputs"]] * number}),
        ]
    )
    return Hostile("many", json.dumps(body).encode(), path)


def _large(dice: random.Random) -> Hostile:
    size = dice.choice([MEGABYTE - 64, MEGABYTE + 64, 2 * MEGABYTE]) if dice.random() < 0.1 else 100_000
    return Hostile("large", b'{"user_id": "%s"}' % (b"x" * size), _address(dice))


def _parametrised(dice: random.Random) -> Hostile:
    """Parameters and what-if features of wrong types, names and sizes."""
    path, body = _valid(dice)
    names = (
        "features",
        "reasons",
        "tenure_months",
        "total_purchases",
        "customer_segment",
        "purchase_frequency",
    )
    odd = b"{%s: %s}" % (json.dumps(dice.choice([*names, _text(dice)])).encode(), _odd(dice))
    wrapped = {"@": 0} if isinstance(body, list) else {**body, dice.choice(["parameters", "features"]): "@"}
    text = json.dumps(wrapped).encode().replace(b'"@"', dice.choice([odd, _odd(dice)]), 1)
    return Hostile("parameters", text, path)


def _typed(dice: random.Random) -> Hostile:
    """A content type that is not what the body is."""
    kind = dice.choice(CONTENT_TYPES)
    body = dice.choice(
        [
            json.dumps(_valid(dice)[1]).encode(),
            b"user_id=1&user_id=2",
            b"data=%7B%22user_id%22%3A1%7D",
            b'--x\r\nContent-Disposition: form-data; name="data"\r\n\r\n{"user_id": 1}\r\n--x--\r\n',
            b'--x\r\nContent-Disposition: form-data; name="data"; filename="../a"\r\n\r\n\xff\r\n--x--\r\n',
            b"--x\r\n",
            b"",
        ]
    )
    return Hostile("content type", body, _address(dice), {"Content-Type": kind} if kind else {})


def _chunked(dice: random.Random) -> Hostile:
    path, body = _valid(dice)
    text = json.dumps(body).encode()
    return Hostile(
        "chunked", text if dice.random() < 0.5 else text[:-1], path, chunk=dice.choice([1, 3, 1000])
    )


def _wandering(dice: random.Random) -> Hostile:
    method = dice.choice(["POST", "POST", "POST", "GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"])
    return Hostile("path", json.dumps(_valid(dice)[1]).encode(), dice.choice(PATHS), method=method)


def _headed(dice: random.Random) -> Hostile:
    """Headers that the handler or the server might read."""
    path, body = _valid(dice)
    name = dice.choice(["x-request-id", "traceparent", "Accept", "X-Forwarded-For", "ce-id", "Prefer"])
    value = dice.choice(["", "a" * 2000, "é", "\t", "100-continue", "1" * 300, "{}", "x,y;z"])
    return Hostile("header", json.dumps(body).encode(), path, JSON | {name: value})


def _address(dice: random.Random) -> str:
    return dice.choice([NATIVE, V1, V2, V1_EXPLAIN])


KINDS: tuple[Callable[[random.Random], Hostile], ...] = (
    _replaced, _mutated, _parametrised, _replaced, _mutated, _noise, _doubled, _parametrised, _encoded,
    _replaced, _mutated, _compressed, _typed, _chunked, _wandering, _headed, _replaced, _parametrised,
    _mutated, _replaced, _nested, _mutated, _large, _replaced, _parametrised, _mutated, _replaced, _many,
)  # fmt: skip
"""Visited in turn: the cheap and fruitful kinds often, the large ones seldom."""
