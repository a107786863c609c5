"""Bodies of all protocols: the requests that are read from them, their answers, and errors about bad ones."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.protocol import protocols
from handlers.protocol.json_answers import refuse
from handlers.protocol.messages import (
    Answer,
    BadRequest,
    Call,
    Explanation,
    Prediction,
    Protocol,
    Refusal,
    Request,
    Rules,
    Wants,
)
from handlers.protocol.protocols import parse, respond

MASKED = "u_" + "0a" * 16


SHOWN = Wants(features=True)
TYPES = {"orders_30d": "int64", "spend_30d": "float64", "segment": "string"}
RULES = Rules("integer", 5, TYPES, {"per_order": ("spend_30d", "orders_30d")})


def read(body: Any, id_type: str = "integer", call: Call = Call()) -> Request:  # noqa: B008
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse({"body": raw}, replace(RULES, id_type=id_type), call)


def v2(data: Any, shape: Any = None, datatype: Any = "INT64", **more: Any) -> dict[str, Any]:
    rows = [len(data)] if shape is None and isinstance(data, list) else shape
    tensor = {"name": "user_id", "shape": rows, "datatype": datatype, "data": data}
    return {"inputs": [tensor | more]}


def test_native_v1_and_v2_request_the_same_customers() -> None:
    assert read({"user_id": 1}) == Request("native", (1,), wants=SHOWN)
    assert read([{"user_id": 1}, {"user_id": 2}]) == Request("native_list", (1, 2))
    assert read({"instances": [{"user_id": 1}, {"user_id": 2}]}) == Request("v1", (1, 2))
    assert read(v2([1, 2]) | {"id": "q"}) == Request("v2", (1, 2), id="q")
    assert read(v2(["a"], datatype="BYTES"), "string") == Request("v2", ("a",), datatype="BYTES")


def test_a_decoded_body_and_a_form_file_are_read_like_raw_bytes() -> None:
    alone = Request("native", (1,), wants=SHOWN)
    assert parse({"body": {"user_id": 1}}, RULES) == alone
    assert parse({"data": bytearray(b'{"user_id": 1}')}, RULES) == alone


def test_masked_ids_are_accepted_with_any_declared_type() -> None:
    assert read({"user_id": MASKED}).user_ids == (MASKED,)
    assert read(v2([MASKED], datatype="BYTES")).user_ids == (MASKED,)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"{bad", "body: not JSON at character 1"),
        (b"", "body: not JSON at character 0"),
        (b"\xff", "body: not UTF-8"),
        (b'{"user_id": NaN}', "body: NaN is not JSON"),
        (b'{"user_id": 1, "user_id": 2}', 'body: the key "user_id" occurs twice'),
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
        ({"instances": 1}, "instances: expected a list, found an integer"),
        ({"instances": [1]}, "instances[0]: expected an object"),
        ({"instances": [{"user_id": 1}] * 6}, "instances: 6 customers; at most 5 a request"),
        ({"instances": [{"user_id": 1}, {"user_id": [1]}]}, "instances[1].user_id: must be an integer"),
        ({"inputs": []}, "inputs: expected a list of exactly one tensor"),
        (v2([1], name="user"), "inputs[0].name: expected user_id"),
        (v2([1], datatype="FP32"), "inputs[0].datatype: expected INT64 or BYTES"),
        (v2([1], datatype=["INT64"]), "inputs[0].datatype: expected INT64 or BYTES"),
        (v2([1], shape=[2]), "inputs[0].shape: expected [1]"),
        (v2([1], shape=[True]), "inputs[0].shape: expected [1]"),
        (v2([1], shape=[1, 1, 1]), "inputs[0].shape: expected [1] or [1, 1]"),
        (v2([1], shape=[1, 2]), "inputs[0].shape: expected [1] or [1, 1]"),
        (v2([[1]], shape=[1]), "inputs[0].data[0]: expected INT64, found a list"),
        (v2([1]) | {"outputs": [{"name": "nope"}]}, "outputs[0].name: expected one of churn_probability"),
        (v2([1]) | {"outputs": [{"name": ["status"]}]}, "outputs[0].name: expected one of"),
        (v2([1]) | {"outputs": ["status"]}, "outputs[0]: expected an object, found a string"),
        (v2([1]) | {"outputs": [{"name": "status"}] * 2}, 'outputs[1].name: "status" is requested twice'),
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
        parse({"user_id": b"3"}, RULES)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["user_id", "instances", "inputs", "name", "shape", "datatype", "data", "id", "x", *TYPES]
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
NEAR_WHAT_IF = st.builds(
    lambda features, parameters: {"user_id": 1, "features": features, "parameters": parameters},
    st.dictionaries(st.sampled_from([*TYPES, "per_order", "x"]), JSON, max_size=3),
    JSON | st.dictionaries(st.sampled_from(["features", "reasons"]), JSON, max_size=2),
)
BODY = JSON | NEAR_V2 | NEAR_WHAT_IF


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    body=BODY | st.binary(max_size=60) | st.builds(lambda body: json.dumps(body).encode(), BODY),
    id_type=st.sampled_from(["integer", "string"]),
    call=st.sampled_from([Call(), Call(explain=True), Call(grpc=True)]),
)
def test_whatever_is_sent_is_read_or_refused_and_never_breaks(body: Any, id_type: str, call: Call) -> None:
    try:
        request = parse({"body": body}, replace(RULES, id_type=id_type), call)
    except BadRequest as refusal:
        assert str(refusal)
        str(refusal).encode()
    else:
        assert 1 <= len(request.user_ids) <= 5
        assert all(type(user_id) in (int, str) for user_id in request.user_ids)


PLAIN = Prediction(0.75, "High Risk", 0.5, "ok")
SCORED = replace(PLAIN, features={"orders": 3, "amount": float("nan")}, feature_age_s=60.0)
UNKNOWN = Refusal(404, "unknown user_id")
ONE = {
    "user_id": 1,
    "churn_probability": 0.75,
    "prediction": "High Risk",
    "threshold": 0.5,
    "model_version": "v",
    "status": "ok",
}


def content(answer: Answer) -> Any:
    return json.loads(answer.body)


def test_an_answer_has_the_shape_of_its_request() -> None:
    shown = ONE | {"features": {"orders": 3, "amount": None}, "feature_age_s": 60.0}
    assert content(respond(Request("native", (1,), wants=SHOWN), [SCORED], "churn", "v")) == shown
    assert content(respond(Request("native_list", (1,)), [PLAIN], "churn", "v")) == [ONE]
    assert content(respond(Request("v1", (1,)), [PLAIN], "churn", "v")) == {"predictions": [ONE]}
    assert content(respond(Request("v2", (1,), id="q"), [PLAIN], "churn", "v")) == {
        "model_name": "churn",
        "model_version": "v",
        "id": "q",
        "outputs": [
            {"name": "churn_probability", "shape": [1], "datatype": "FP64", "data": [0.75]},
            {"name": "prediction", "shape": [1], "datatype": "BYTES", "data": ["High Risk"]},
            {"name": "threshold", "shape": [1], "datatype": "FP64", "data": [0.5]},
            {"name": "status", "shape": [1], "datatype": "BYTES", "data": ["ok"]},
            {"name": "user_id", "shape": [1], "datatype": "INT64", "data": [1]},
        ],
    }


def test_an_unknown_customer_is_a_404_alone_and_a_note_among_others() -> None:
    note = {"user_id": 9, "error": "unknown user_id", "churn_probability": None}
    alone = respond(Request("native", (9,)), [UNKNOWN], "churn", "v")
    assert (alone.http_status, content(alone)) == (404, note)
    among = respond(Request("v1", (1, 9)), [PLAIN, UNKNOWN], "churn", "v")
    assert among.http_status == 200
    assert content(among)["predictions"][1] == note
    tensor = respond(Request("v2", (1, 9)), [PLAIN, UNKNOWN], "churn", "v")
    assert (tensor.http_status, content(tensor)) == (404, {"error": "inputs[0].data[1]: unknown user_id"})


def test_a_refusal_for_now_says_when_to_ask_again() -> None:
    closed = Refusal(503, "no", "closed", retry_after_s=0.2)
    for answer in (refuse(closed), respond(Request("native", (1,)), [closed], "churn", "v")):
        assert answer.headers == {"Retry-After": "1"}
        assert content(answer)["code"] == "closed"
    assert refuse(replace(closed, retry_after_s=1.2)).headers == {"Retry-After": "2"}
    assert refuse(UNKNOWN).headers == {}


def test_what_if_values_belong_to_their_customer() -> None:
    given = {"orders_30d": 0, "spend_30d": 2, "segment": None}
    alone = read({"user_id": 1, "features": given})
    assert alone.overrides == (given,)
    assert type(alone.overrides[0]["spend_30d"]) is float
    several = read({"instances": [{"user_id": 1}, {"user_id": 1, "features": given}]})
    assert several.overrides == ({}, given)
    assert read([{"user_id": 1, "features": {}}]).overrides == ()


@pytest.mark.parametrize(
    ("features", "complaint"),
    [
        ([], "features: expected an object of feature values, found a list"),
        ({"orders": 1}, 'features: unknown feature "orders"; known are orders_30d, spend_30d, segment'),
        ({"per_order": 1}, "features.per_order: is computed from spend_30d and orders_30d"),
        ({"orders_30d": "1"}, "features.orders_30d: expected an integer or null, found a string"),
        ({"orders_30d": 1.0}, "features.orders_30d: expected an integer or null, found a number with"),
        ({"orders_30d": True}, "features.orders_30d: expected an integer or null, found a boolean"),
        ({"orders_30d": 2**63}, "features.orders_30d: does not fit into 64 bits"),
        ({"spend_30d": "1"}, "features.spend_30d: expected a number or null, found a string"),
        ({"spend_30d": False}, "features.spend_30d: expected a number or null, found a boolean"),
        ({"spend_30d": 10**400}, "features.spend_30d: expected a finite number"),
        ({"segment": 1}, "features.segment: expected text or null, found an integer"),
        ({"segment": "x" * 1025}, "features.segment: longer than 1024 characters"),
        ({"segment": "\ud800"}, "features.segment: not valid Unicode text"),
    ],
)
def test_a_what_if_value_of_another_type_is_refused(features: Any, complaint: str) -> None:
    for body, where in (
        ({"user_id": 1, "features": features}, ""),
        ({"instances": [{"user_id": 1, "features": features}]}, "instances[0]."),
    ):
        with pytest.raises(BadRequest) as refusal:
            read(body)
        assert (where + complaint) in str(refusal.value)


def test_an_infinite_number_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"features\.spend_30d: expected a finite number"):
        read(b'{"user_id": 1, "features": {"spend_30d": 1e999}}')


def test_parameters_request_more_than_the_score() -> None:
    parameters = {"parameters": {"features": True, "reasons": True}}
    assert read({"instances": [{"user_id": 1}]} | parameters).wants == Wants(True, 3, age=True)
    assert read({"user_id": 1, "parameters": {"features": False, "reasons": 5}}).wants == Wants(False, 5)
    assert read({"instances": [{"user_id": 1}]}, call=Call(explain=True)).wants == Wants(False, 3, True)
    assert read({"instances": [{"user_id": 1}]}).wants == Wants()
    hinted = v2([1]) | {"parameters": {"binary_data_output": True, "reasons": 1}}
    assert read(hinted).wants == Wants(False, 1)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"user_id": 1, "parameters": 1}, "parameters: expected an object, found an integer"),
        ({"user_id": 1, "parameters": {"feature": True}}, 'parameters: unknown key "feature"'),
        ({"user_id": 1, "parameters": {"features": 1}}, "parameters.features: expected true or false"),
        ({"user_id": 1, "parameters": {"reasons": -1}}, "parameters.reasons: expected true, false or the"),
        ({"user_id": 1, "parameters": {"reasons": "3"}}, "parameters.reasons: expected true, false or the"),
        ([{"user_id": 1, "parameters": {}}], 'body[0]: unknown key "parameters"'),
        (v2([1]) | {"inputs": v2([1])["inputs"] * 2}, "question in a native or v1 body"),
    ],
)
def test_wrong_parameters_are_refused(body: Any, complaint: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        read(body)
    assert complaint in str(refusal.value)


def test_reasons_for_too_many_customers_are_refused() -> None:
    rules = replace(RULES, max_instances=1000)
    body = {"instances": [{"user_id": 1}] * 21, "parameters": {"reasons": True}}
    with pytest.raises(BadRequest, match="21 customers; reasons for at most 20 a request"):
        parse({"body": body}, rules)
    assert len(parse({"body": body | {"parameters": {}}}, rules).user_ids) == 21


def test_torchserve_s_grpc_passes_bytes_in_base64_and_no_raw_tensors() -> None:
    encoded = base64.b64encode(MASKED.encode()).decode()
    assert read(v2([encoded], datatype="BYTES"), call=Call(grpc=True)).user_ids == (MASKED,)
    with pytest.raises(BadRequest, match=r"send typed contents.*drops raw_input_contents"):
        read(v2([], shape=[1]), call=Call(grpc=True))
    with pytest.raises(BadRequest, match=r"inputs\[0\]\.data\[0\]: expected UTF-8 text in bytes_contents"):
        read(v2(["!"], datatype="BYTES"), call=Call(grpc=True))


WHY = Explanation({"orders_30d": -0.5}, 0.25, -0.25, 0.0, "exact")
EXPLAINED = replace(PLAIN, reasons=("orders lower the risk",), explanation=WHY, overridden=("orders_30d",))


def test_reasons_and_explanations_in_each_protocol() -> None:
    wants = Wants(False, 3, True)
    why = {
        "base_log_odds": 0.25,
        "log_odds": -0.25,
        "attributions": {"orders_30d": -0.5},
        "additivity_gap": 0.0,
        "method": "exact",
    }
    reasons = {"reasons": ["orders lower the risk"]}
    one = ONE | {"overridden": ["orders_30d"]} | reasons
    alone = content(respond(Request("native", (1,), wants=wants), [EXPLAINED], "churn", "v"))
    assert alone == one | {"explanation": why}
    v1 = content(respond(Request("v1", (1, 9), wants=wants), [EXPLAINED, UNKNOWN], "churn", "v"))
    assert v1["predictions"][0] == one
    assert v1["explanations"] == [
        {"user_id": 1} | why | reasons,
        {"user_id": 9, "error": "unknown user_id"},
    ]
    tensors = content(respond(Request("v2", (1,), wants=wants), [EXPLAINED], "churn", "v"))["outputs"]
    texts = {tensor["name"]: json.loads(tensor["data"][0]) for tensor in tensors[-2:]}
    assert texts == {"reasons": ["orders lower the risk"], "explanation": why}


def test_an_entry_in_the_table_is_all_that_a_protocol_needs_to_be_parsed_and_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def parse_batch(body: Any, rules: Rules, call: Call) -> Request:
        return Request("batch", tuple(body["batch"]))

    def answer_batch(request: Request, outcomes: Any, model_name: str, model_version: str) -> Answer:
        return Answer(200, f"{len(outcomes)} of {model_name} {model_version}".encode())

    batch = Protocol("batch", parse_batch, answer_batch, key="batch")
    monkeypatch.setattr(protocols, "PROTOCOLS", {**protocols.PROTOCOLS, "batch": batch})
    monkeypatch.setattr(protocols, "_BY_KEY", [*protocols._BY_KEY, ("batch", batch)])
    request = read({"batch": [1, 2]})
    assert request == Request("batch", (1, 2))
    assert respond(request, [PLAIN, PLAIN], "churn", "v").body == b"2 of churn v"
    assert read({"user_id": 1}).protocol == "native"
    names = [route.name for one in protocols.PROTOCOLS.values() for route in one.routes]
    assert len(names) == len(set(names)) == 5
