"""Open Inference Protocol v2 in the forms that clients send: named outputs, columns, raw bytes, messages,
gzip."""

import gzip
import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kserve.protocol.grpc import grpc_predict_v2_pb2 as oip

from handlers.protocol.json_answers import refuse
from handlers.protocol.messages import (
    Answer,
    BadRequest,
    Call,
    Explanation,
    NotServed,
    Output,
    Prediction,
    Refusal,
    Request,
    Rules,
    TooLarge,
    UnsupportedEncoding,
    Wants,
)
from handlers.protocol.protocols import carried, parse, respond

RULES = Rules("integer", 5, model_name="churn", model_version="v7")
TEXTS = replace(RULES, id_type="string")
INFER = Call(rpc="ModelInfer")
WHY = Explanation({"orders": 0.5}, -1.0, -0.5, 0.0, "exact")
SCORED = Prediction(0.1 + 0.2, "Low Risk", 0.5, "ok", features={"orders": 3}, reasons=("few orders",))
Tensor = oip.ModelInferRequest.InferInputTensor


def json_length(length: int | str) -> Call:
    return Call(headers={"inference-header-content-length": str(length)})


def body(data: Any, **more: Any) -> dict[str, Any]:
    tensor = {"name": "user_id", "shape": [len(data)], "datatype": "INT64", "data": data}
    return {"inputs": [tensor | more.pop("tensor", {})], **more}


def read(content: Any, call: Call = Call(), rules: Rules = RULES) -> Request:  # noqa: B008
    return parse(
        {"body": content if isinstance(content, bytes) else json.dumps(content).encode()}, rules, call
    )


def answered(request: Request, *scored: Prediction | Refusal) -> Answer:
    return respond(request, scored or [SCORED] * len(request.user_ids), "churn", "v7")


def names(request: Request) -> list[str]:
    return [tensor["name"] for tensor in json.loads(answered(request).body)["outputs"]]


@pytest.mark.parametrize("data", [[[1], [2]], [1, 2]])
def test_a_column_is_read_like_a_list(data: Any) -> None:
    assert read(body(data, tensor={"shape": [2, 1]})).user_ids == (1, 2)
    assert read(body([1, 2], tensor={"shape": [2]})).user_ids == (1, 2)


def test_an_answer_has_the_named_outputs_in_their_order() -> None:
    def named(*outputs: str) -> Request:
        return read(body([1], outputs=[{"name": name} for name in outputs]))

    assert names(named("churn_probability")) == ["churn_probability"]
    assert names(named("status", "churn_probability")) == ["status", "churn_probability"]
    assert names(named("reasons", "user_id", "features")) == ["reasons", "user_id", "features"]
    assert named("reasons").wants == Wants(reasons=3)
    assert named("explanation").wants == Wants(explanation=True)
    assert names(named()) == ["churn_probability", "prediction", "threshold", "status", "user_id"]
    # Outputs that are not named are not computed.
    assert read(body([1], outputs=[{"name": "status"}], parameters={"reasons": 3})).wants == Wants()


def test_reasons_by_name_are_limited_like_those_by_parameter() -> None:
    with pytest.raises(BadRequest, match=r"^parameters\.reasons: 21 customers"):
        read(body(list(range(21)), outputs=[{"name": "reasons"}]), rules=replace(RULES, max_instances=100))


def binary(values: bytes, datatype: str = "INT64", n: int = 2, **more: Any) -> tuple[bytes, Call]:
    """A body in the form in which tritonclient and the KServe SDK send a numpy array by default."""
    tensor = {"name": "user_id", "shape": [n], "datatype": datatype}
    text = json.dumps(
        {"inputs": [tensor | {"parameters": {"binary_data_size": len(values)}}], **more}
    ).encode()
    return text + values, json_length(len(text))


def test_numbers_and_texts_are_read_from_raw_bytes() -> None:
    assert read(*binary(np.array([1, -(2**63)]).tobytes())).user_ids == (1, -(2**63))
    texts = b"".join(struct.pack("<I", len(t)) + t for t in ("Zoë".encode(), b"a"))
    assert read(*binary(texts, "BYTES"), TEXTS).user_ids == ("Zoë", "a")


def test_raw_tensors_of_an_answer_follow_the_json_with_the_same_bits() -> None:
    content, call = binary(np.array([1, 2]).tobytes(), parameters={"binary_data_output": True})
    answer = answered(read(content, call))
    assert answer.content_type == "application/octet-stream"
    length = int(answer.headers["Inference-Header-Content-Length"])
    outputs = json.loads(answer.body[:length])["outputs"]
    assert [o["name"] for o in outputs] == [
        "churn_probability",
        "prediction",
        "threshold",
        "status",
        "user_id",
    ]
    sizes = [o["parameters"]["binary_data_size"] for o in outputs]
    assert sum(sizes) == len(answer.body) - length
    assert np.frombuffer(answer.body[length : length + 16]).tolist() == [SCORED.churn_probability] * 2
    assert np.frombuffer(answer.body[-16:], dtype=np.int64).tolist() == [1, 2]


def test_each_output_is_json_or_bytes_as_requested() -> None:
    wanted = [
        {"name": "status", "parameters": {"binary_data": False}},
        {"name": "churn_probability", "parameters": {"binary_data": True}},
    ]
    request = read(body([1], outputs=wanted))
    assert request.outputs == (Output("status"), Output("churn_probability", True))
    answer = answered(request)
    length = int(answer.headers["Inference-Header-Content-Length"])
    status, score = json.loads(answer.body[:length])["outputs"]
    assert status["data"] == ["ok"]
    assert "data" not in score
    assert struct.unpack("<d", answer.body[length:]) == (SCORED.churn_probability,)


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        ((b"{}", json_length(3)), "Inference-Header-Content-Length: expected a number up to 2"),
        ((b"{}", json_length(0)), "Inference-Header-Content-Length: expected a number up to 2"),
        ((b"{}", json_length("2x")), "Inference-Header-Content-Length: expected a number up to 2"),
        ((b"{}", json_length("²")), "Inference-Header-Content-Length: expected a number up to 2"),
        ((b"{}", json_length(-1)), "Inference-Header-Content-Length: expected a number up to 2"),
        ((b"[]", json_length(2)), "body: expected a JSON object"),
        (binary(b"1234567"), "inputs[0]: 7 raw bytes, expected 8 for each INT64"),
        (binary(b"12345678"), "inputs[0].shape: expected [1] or [1, 1]"),
        (binary(b"", n=0), "inputs[0].data: empty"),
        (binary(b"\5\0\0\0abc", "BYTES"), "inputs[0]: the raw bytes end inside text 0"),
        (binary(b"\1\0\0\0a\1\0", "BYTES"), "inputs[0]: the raw bytes end inside the length of text 1"),
        (binary(b"\1\0\0\0\xff", "BYTES"), "inputs[0]: text 0 is not UTF-8"),
        (binary(b"1234", "FP32"), "inputs[0].datatype: expected INT64 or BYTES"),
    ],
)
def test_the_error_about_bad_raw_bytes_names_the_field(sent: tuple[bytes, Call], complaint: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        read(*sent)
    assert complaint in str(refusal.value)


def test_a_size_that_is_not_that_of_the_bytes_is_refused() -> None:
    content, call = binary(b"12345678" * 2)
    for wrong in (content + b"12345678", content[:-8]):
        with pytest.raises(BadRequest, match="binary_data_size: expected"):
            read(wrong, call)


def message(request: oip.ModelInferRequest, compress: str = "") -> tuple[bytes, Call]:
    content = request.SerializeToString()
    if compress == "gzip":
        content = gzip.compress(content)
    elif compress:
        content = zlib.compress(content)
    return struct.pack(">BI", bool(compress), len(content)) + content, INFER._replace(grpc_encoding=compress)


def infer(ids: Sequence[int] | None = (1, 2), **more: Any) -> oip.ModelInferRequest:
    contents = None if ids is None else oip.InferTensorContents(int64_contents=ids)
    tensor = Tensor(name="user_id", datatype="INT64", shape=[2], contents=contents)
    return oip.ModelInferRequest(**{"model_name": "churn", "inputs": [tensor], **more})


def response(answer: Answer) -> oip.ModelInferResponse:
    assert answer.content_type == "application/x-protobuf"
    flag, length = struct.unpack(">BI", answer.body[:5])
    assert (flag, length) == (0, len(answer.body) - 5)
    return oip.ModelInferResponse.FromString(answer.body[5:])


@pytest.mark.parametrize("compress", ["", "gzip", "deflate"])
def test_a_message_with_typed_contents_is_answered_with_typed_contents(compress: str) -> None:
    request = read(*message(infer(id="q"), compress))
    assert (request.user_ids, request.id) == ((1, 2), "q")
    answer = response(answered(request))
    assert (answer.model_name, answer.model_version, answer.id) == ("churn", "v7", "q")
    score, decision, _, _, user = answer.outputs
    assert list(score.contents.fp64_contents) == [SCORED.churn_probability] * 2
    assert list(decision.contents.bytes_contents) == [b"Low Risk"] * 2
    assert (list(user.shape), list(user.contents.int64_contents)) == ([2], [1, 2])
    assert not answer.raw_output_contents


def test_a_message_with_raw_contents_is_answered_with_raw_contents() -> None:
    request = read(*message(infer(None, raw_input_contents=[np.array([1, 2]).tobytes()])))
    assert request.user_ids == (1, 2)
    answer = response(answered(request))
    assert len(answer.raw_output_contents) == len(answer.outputs) == 5
    assert np.frombuffer(answer.raw_output_contents[0]).tolist() == [SCORED.churn_probability] * 2
    assert not answer.outputs[0].HasField("contents")


def test_a_message_names_its_outputs_and_parameters() -> None:
    wanted = [oip.ModelInferRequest.InferRequestedOutputTensor(name=n) for n in ("status", "reasons")]
    request = infer(outputs=wanted)
    request.parameters["reasons"].int64_param = 1
    found = read(*message(request))
    assert found.wants == Wants(reasons=1)
    assert [tensor.name for tensor in response(answered(found)).outputs] == ["status", "reasons"]


def test_texts_in_a_message_are_utf8() -> None:
    contents = oip.InferTensorContents(bytes_contents=["Zoë".encode()])
    tensor = Tensor(name="user_id", datatype="BYTES", shape=[1, 1], contents=contents)
    found = read(*message(oip.ModelInferRequest(model_name="churn", inputs=[tensor])), TEXTS)
    assert found.user_ids == ("Zoë",)
    assert list(response(answered(found)).outputs[4].contents.bytes_contents) == ["Zoë".encode()]


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (infer(None), "inputs[0].data: missing"),
        (infer(raw_input_contents=[b"12345678"]), "raw_input_contents[0]: inputs[0] has contents too"),
        (infer(None, raw_input_contents=[b"1", b"2"]), "raw_input_contents: 2 tensors, expected 1"),
        (infer([1]), "inputs[0].shape: expected [1]"),
        (infer(inputs=[]), "inputs: expected a list of exactly one tensor"),
    ],
)
def test_the_error_about_a_bad_message_names_the_field(
    request_: oip.ModelInferRequest, complaint: str
) -> None:
    with pytest.raises(BadRequest) as refusal:
        read(*message(request_))
    assert complaint in str(refusal.value)


def test_another_model_or_version_is_not_served() -> None:
    assert read(*message(infer(model_version="v7"))).user_ids == (1, 2)
    for named in ({"model_name": "other"}, {"model_version": "v6"}):
        with pytest.raises(NotServed, match="not served here"):
            read(*message(infer(**named)))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["ModelInfer", "Predictions"]), st.booleans())
def test_arbitrary_bytes_only_raise_bad_request(content: bytes, rpc: str, frame: bool) -> None:
    sent = struct.pack(">BI", 0, len(content)) + content if frame else content
    try:
        read(sent, Call(rpc=rpc))
    except BadRequest as refusal:
        assert str(refusal)


def test_a_refusal_over_grpc_is_a_status_and_a_reason() -> None:
    refused = carried(refuse(Refusal(503, "später", "store_down", 1)), INFER)
    assert (refused.http_status, refused.body) == (503, b"")
    assert refused.headers == {"Retry-After": "1", "grpc-message": "sp%C3%A4ter"}
    assert carried(refuse(Refusal(404, "x")), Call()).content_type == "application/json"


def test_a_native_body_in_torchserve_s_own_grpc_message() -> None:
    native = b'{"user_id": 1}'
    entry = b"\x0a\x04body\x12" + bytes([len(native)]) + native
    content = b"\x0a\x05churn" + b"\x1a" + bytes([len(entry)]) + entry
    call = Call(rpc="Predictions")
    request = read(struct.pack(">BI", 0, len(content)) + content, call)
    assert (request.protocol, request.user_ids) == ("native", (1,))
    answer = carried(answered(request), call)
    assert json.loads(answer.body[answer.body.index(b"{") :])["churn_probability"] == SCORED.churn_probability


PLAIN = b'{"user_id": 1}'
RAW_DEFLATE = zlib.compressobj(wbits=-15)


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("gzip", gzip.compress(PLAIN, mtime=0)),
        ("x-gzip", gzip.compress(PLAIN, mtime=0)),
        ("GZIP", gzip.compress(PLAIN, mtime=0)),
        ("deflate", zlib.compress(PLAIN)),
        ("deflate", RAW_DEFLATE.compress(PLAIN) + RAW_DEFLATE.flush()),
        ("identity", PLAIN),
    ],
)
def test_compressed_bodies_are_read(encoding: str, content: bytes) -> None:
    assert read(content, Call(encoding=encoding)).user_ids == (1,)


def test_the_error_about_other_compression_names_the_header() -> None:
    for encoding in ("br", "zstd", "gzip, gzip", "\u202e\n"):
        with pytest.raises(UnsupportedEncoding, match=r"^Content-Encoding: .* send gzip, deflate") as refusal:
            read(PLAIN, Call(encoding=encoding))
        assert refusal.value.http_status == 415
        assert "\n" not in str(refusal.value)


def test_a_body_that_contradicts_content_encoding_is_refused() -> None:
    for content in (PLAIN, gzip.compress(PLAIN)[:-4], gzip.compress(PLAIN) + b"x", b""):
        with pytest.raises(BadRequest, match="Content-Encoding"):
            read(content, Call(encoding="gzip"))


def test_decompression_stops_at_the_limit() -> None:
    with pytest.raises(TooLarge, match="more than 1048576 bytes"):
        read(gzip.compress(b" " * 50_000_000), Call(encoding="gzip"))


def test_a_byte_order_mark_is_accepted() -> None:
    assert read(b"\xef\xbb\xbf" + PLAIN).user_ids == (1,)


def test_one_instance_needs_no_list() -> None:
    assert read({"instances": {"user_id": 1}}).user_ids == (1,)
