"""The fast path gives the same results as `protocols`, byte for byte, or leaves the request to it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.protocol import fast_path
from handlers.protocol.messages import PLAIN, SHOWN, BadRequest, Call, Prediction, Request, Rules
from handlers.protocol.protocols import PROTOCOLS, parse, respond

INTEGER, STRING = Rules("integer", 1000), Rules("string", 1000)
IDS = (
    st.integers(-(10**20), 10**20)
    | st.text(max_size=12)
    | st.sampled_from(["u_" + "0" * 32, "u_x", "a b", 'quote"', "back\\slash", "ü", "", "x" * 256, "x" * 257])
)
SPACES = st.text(" \t\r\n", max_size=2)
SCORES = st.floats(0, 1) | st.sampled_from([5e-324, 0.1 + 0.2, 1e-7, 1.0, 0.0])


def by(parser: Any, body: bytes, rules: Rules) -> Any:
    try:
        return parser(body, rules, Call())
    except BadRequest as error:
        return str(error)


def by_protocols(body: bytes, rules: Rules, call: Call) -> Request:
    return parse({"body": body}, rules, call)


@given(IDS, SPACES, SPACES, st.booleans(), st.booleans(), st.sampled_from([INTEGER, STRING]))
def test_a_body_that_is_read_becomes_the_same_request(
    user_id: int | str, one: str, two: str, v1: bool, ascii_only: bool, rules: Rules
) -> None:
    name = json.dumps(user_id, ensure_ascii=ascii_only)
    instance = f'{{{one}"user_id"{two}:{one}{name}{two}}}'
    text = f'{two}{{"instances":{one}[{two}{instance}{one}]}}{two}' if v1 else f"{one}{instance}{two}"
    found = by(fast_path.read, text.encode(), rules)
    if found is not None:
        assert found == by(by_protocols, text.encode(), rules)
    plain = isinstance(user_id, int) or (user_id.isascii() and user_id.isalnum())
    if plain and 0 < len(str(user_id)) <= 18:
        assert found is not None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"user_id": 01}',
        b'{"user_id": 1.0}',
        b'{"user_id": 1e3}',
        b'{"user_id": +1}',
        b'{"user_id": true}',
        b'{"user_id": null}',
        b'{"user_id": 1, "user_id": 2}',
        b'{"user_id": 1, "parameters": {}}',
        b'{"user_id": 1}x',
        b'{"user_id": 1}\x00',
        b'\xef\xbb\xbf{"user_id": 1}',
        b'{"user_id": "\\u0031"}',
        b'{"user_id": "\x7f"}',
        b'{"user_id": "\xc3\xbc"}',
        b'{"instances": []}',
        b'{"instances": [{"user_id": 1}, {"user_id": 2}]}',
        b'{"instances": [{"user_id": 1}], "instances": [{"user_id": 2}]}',
        b'{"instances": [{"user_id": 1}], "parameters": {"features": true}}',
        b'{"instances": [{"user_id": 1}]]}',
        b'{"user_id": 123456789012345678901234567890}',
    ],
)
def test_all_other_bodies_are_left_to_protocols(body: bytes) -> None:
    for rules in (INTEGER, STRING):
        assert fast_path.read(body, rules, Call()) is None


def test_explanations_and_bodies_that_are_not_bytes_are_left_too() -> None:
    assert fast_path.read(b'{"user_id": 1}', INTEGER, Call(explain=True)) is None
    assert fast_path.read(b'{"user_id": 1}', INTEGER, Call(headers={"a-protocol": "x"})) is None
    assert fast_path.read({"user_id": 1}, INTEGER, Call()) is None
    assert fast_path.read(None, INTEGER, Call()) is None


@given(
    st.sampled_from(["native", "native_list", "v1"]),
    st.lists(st.tuples(IDS, SCORES), min_size=1, max_size=3),
    st.floats(0.01, 0.99),
    st.text(max_size=12),
)
def test_an_answer_from_the_template_has_the_bytes_of_protocols(
    protocol: Any, customers: list[tuple[int | str, float]], threshold: float, version: str
) -> None:
    customers = customers[:1] if protocol == "native" else customers
    request = Request(protocol, tuple(user_id for user_id, _ in customers), (), PLAIN)
    outcomes = [
        Prediction(score, "High Risk" if score > threshold else "Low Risk", threshold, "ok")
        for _, score in customers
    ]
    template = fast_path.Template("churn", version, threshold)
    assert template.fits(request)
    assert template.answer(request, [score for _, score in customers]) == respond(
        request, outcomes, "churn", version
    )


def test_requests_for_more_than_scores_do_not_fit() -> None:
    template = fast_path.Template("churn", "1", 0.5)
    assert not template.fits(Request("native", (1,), (), SHOWN))


@pytest.mark.parametrize("name", [*PROTOCOLS, "a protocol without a frame"])
def test_only_answers_of_protocols_with_a_frame_are_made_of_the_template(name: str) -> None:
    has_frame = name in PROTOCOLS and PROTOCOLS[name].frame is not None
    assert fast_path.Template("churn", "1", 0.5).fits(Request(name, (1,), (), PLAIN)) is has_frame
    assert has_frame is (name in ("native", "native_list", "v1"))
