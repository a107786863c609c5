"""Bodies: what is read out of a good one, and what a bad one is told."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.protocols import Answer, BadRequest, Prediction, Refusal, Request, parse, respond

MASKED = "u_" + "0a" * 16


def read(body: Any, id_type: str = "integer", max_instances: int = 5) -> Request:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse({"body": raw}, id_type, max_instances)


def v2(data: Any, shape: Any = None, datatype: Any = "INT64", **more: Any) -> dict[str, Any]:
    rows = [len(data)] if shape is None and isinstance(data, list) else shape
    tensor = {"name": "user_id", "shape": rows, "datatype": datatype, "data": data}
    return {"inputs": [tensor | more]}


def test_native_v1_and_v2_ask_for_the_same_customers() -> None:
    assert read({"user_id": 1}) == Request("native", (1,))
    assert read([{"user_id": 1}, {"user_id": 2}]) == Request("native_list", (1, 2))
    assert read({"instances": [{"user_id": 1}, {"user_id": 2}]}) == Request("v1", (1, 2))
    assert read(v2([1, 2]) | {"id": "q"}) == Request("v2", (1, 2), id="q")
    assert read(v2(["a"], datatype="BYTES"), "string") == Request("v2", ("a",), datatype="BYTES")


def test_a_decoded_body_and_a_form_file_are_read_like_raw_bytes() -> None:
    assert parse({"body": {"user_id": 1}}, "integer", 5) == Request("native", (1,))
    assert parse({"data": bytearray(b'{"user_id": 1}')}, "integer", 5) == Request("native", (1,))


def test_masked_ids_are_taken_whatever_the_declared_type() -> None:
    assert read({"user_id": MASKED}).user_ids == (MASKED,)
    assert read(v2([MASKED], datatype="BYTES")).user_ids == (MASKED,)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"{bad", "body: not JSON at character 1"),
        (b"", "body: not JSON at character 0"),
        (b"\xff", "body: not UTF-8"),
        (b'{"user_id": NaN}', "body: NaN is not JSON"),
        (b'{"user_id": 1, "user_id": 2}', 'body: the key "user_id" stands twice'),
        (b"[" * 100_000, "body: nested too deeply"),
        (b'{"user_id": ' + b"9" * 5000 + b"}", "body: not JSON: a number with too many digits"),
        (7, "body: expected a JSON object, found an integer"),
        ([], "body: empty"),
        ({}, "user_id: missing"),
        ({"userid": 1}, "user_id: missing"),
        ({"user_id": 1, "usr": 2}, 'body: unknown key "usr"'),
        ({"user_id": True}, "user_id: must be an integer, found a boolean"),
        ({"user_id": 1.0}, "user_id: must be an integer, found a number with a fraction"),
        ({"user_id": "1"}, "user_id: must be an integer, found a string"),
        ({"user_id": None}, "user_id: must be an integer, found null"),
        ({"user_id": 2**63}, "user_id: does not fit into 64 bits"),
        ({"instances": []}, "instances: empty"),
        ({"instances": {"user_id": 1}}, "instances: expected a list, found an object"),
        ({"instances": [1]}, "instances[0]: expected an object"),
        ({"instances": [{"user_id": 1}] * 6}, "instances: 6 customers; at most 5 a request"),
        ({"instances": [{"user_id": 1}, {"user_id": [1]}]}, "instances[1].user_id: must be an integer"),
        ({"inputs": []}, "inputs: expected a list of exactly one tensor"),
        (v2([1], name="user"), "inputs[0].name: expected user_id"),
        (v2([1], datatype="FP32"), "inputs[0].datatype: expected INT64 or BYTES"),
        (v2([1], datatype=["INT64"]), "inputs[0].datatype: expected INT64 or BYTES"),
        (v2([1], shape=[2]), "inputs[0].shape: expected [1]"),
        (v2([1], shape=[True]), "inputs[0].shape: expected [1]"),
        (v2([1], shape=[1, 1]), "inputs[0].shape: expected [1]"),
        (v2([]), "inputs[0].data: empty"),
        (v2("1", shape=[1]), "inputs[0].data: expected a list"),
        (v2([1, True]), "inputs[0].data[1]: expected INT64, found a boolean"),
        (v2(["1"]), "inputs[0].data[0]: expected INT64, found a string"),
        (v2([1], datatype="BYTES"), "inputs[0].data[0]: expected BYTES, found an integer"),
        (v2([1]) | {"id": 5}, "id: expected text"),
    ],
)
def test_a_bad_body_is_told_which_field_and_why(body: Any, complaint: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        read(body)
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_string_ids_are_strict_too() -> None:
    for bad in (1, "", None, "\ud800", "x" * 257):
        with pytest.raises(BadRequest, match=r"^user_id: "):
            read({"user_id": bad}, "string")


def test_a_form_without_json_is_told_to_send_json() -> None:
    with pytest.raises(BadRequest, match="Content-Type: application/json"):
        parse({"user_id": b"3"}, "integer", 5)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["user_id", "instances", "inputs", "name", "shape", "datatype", "data", "id", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)
NEAR_V2 = st.builds(
    lambda data, shape, datatype: v2(data, shape, datatype),
    JSON,
    JSON,
    st.sampled_from(["INT64", "BYTES", "FP64", None]),
)
BODY = JSON | NEAR_V2


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    body=JSON
    | NEAR_V2
    | st.binary(max_size=60)
    | st.builds(lambda body: json.dumps(body).encode(), JSON | NEAR_V2),
    id_type=st.sampled_from(["integer", "string"]),
)
def test_whatever_is_sent_is_read_or_refused_and_never_breaks(body: Any, id_type: str) -> None:
    try:
        request = parse({"body": body}, id_type, 5)
    except BadRequest as refusal:
        assert str(refusal)
        str(refusal).encode()
    else:
        assert 1 <= len(request.user_ids) <= 5
        assert all(type(user_id) in (int, str) for user_id in request.user_ids)


SCORED = Prediction(0.75, "High Risk", {"orders": 3, "amount": float("nan")}, "ok")
UNKNOWN = Refusal(404, "unknown user_id")


def content(answer: Answer) -> Any:
    return json.loads(answer.body)


def test_an_answer_has_the_shape_of_its_request() -> None:
    one = {
        "user_id": 1,
        "churn_probability": 0.75,
        "prediction": "High Risk",
        "features": {"orders": 3, "amount": None},
        "model_version": "v",
        "status": "ok",
    }
    assert content(respond(Request("native", (1,)), [SCORED], "churn", "v")) == one
    assert content(respond(Request("native_list", (1,)), [SCORED], "churn", "v")) == [one]
    assert content(respond(Request("v1", (1,)), [SCORED], "churn", "v")) == {"predictions": [one]}
    assert content(respond(Request("v2", (1,), "q"), [SCORED], "churn", "v")) == {
        "model_name": "churn",
        "model_version": "v",
        "id": "q",
        "outputs": [
            {"name": "churn_probability", "shape": [1], "datatype": "FP64", "data": [0.75]},
            {"name": "prediction", "shape": [1], "datatype": "BYTES", "data": ["High Risk"]},
            {"name": "status", "shape": [1], "datatype": "BYTES", "data": ["ok"]},
            {"name": "user_id", "shape": [1], "datatype": "INT64", "data": [1]},
        ],
    }


def test_an_unknown_customer_is_a_404_alone_and_a_note_among_others() -> None:
    note = {"user_id": 9, "error": "unknown user_id", "churn_probability": None}
    alone = respond(Request("native", (9,)), [UNKNOWN], "churn", "v")
    assert (alone.http_status, content(alone)) == (404, note)
    among = respond(Request("v1", (1, 9)), [SCORED, UNKNOWN], "churn", "v")
    assert among.http_status == 200
    assert content(among)["predictions"][1] == note
    tensor = respond(Request("v2", (1, 9)), [SCORED, UNKNOWN], "churn", "v")
    assert (tensor.http_status, content(tensor)) == (404, {"error": "inputs[0].data[1]: unknown user_id"})
