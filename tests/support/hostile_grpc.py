"""Hostile ModelInfer messages of Open Inference Protocol v2, as bytes: a seeded, endless stream."""

import itertools
import random
from collections.abc import Iterator

from kserve.protocol.grpc import grpc_predict_v2_pb2 as oip

from support.hostile_bodies import ODD_TEXTS

METHOD = "/inference.GRPCInferenceService/ModelInfer"
Tensor = oip.ModelInferRequest.InferInputTensor
LARGEST, SMALLEST = 2**63 - 1, -(2**63)


def messages(seed: int) -> Iterator[bytes]:
    dice = random.Random(seed)
    for make in itertools.cycle((_mutated, _mistyped, _shaped, _raw, _texts, _doubled, _many, _noise)):
        yield make(dice)


def infer(user_ids: list[int], model: str = "churn") -> oip.ModelInferRequest:
    contents = oip.InferTensorContents(int64_contents=user_ids)
    tensor = Tensor(name="user_id", datatype="INT64", shape=[len(user_ids)], contents=contents)
    return oip.ModelInferRequest(model_name=model, inputs=[tensor])


def readable(message: bytes) -> bool:
    """Whether it is a ModelInferRequest at all: gRPC itself refuses others, as an internal error."""
    try:
        oip.ModelInferRequest.FromString(message)
    except Exception:  # protobuf's DecodeError, of whichever implementation
        return False
    return True


def _valid(dice: random.Random) -> oip.ModelInferRequest:
    return infer([dice.randint(1, 205) for _ in range(dice.randint(1, 4))])


def _mutated(dice: random.Random) -> bytes:
    content = bytearray(_valid(dice).SerializeToString())
    for _ in range(dice.randint(1, 3)):
        content[dice.randrange(len(content))] = dice.randrange(256)
    return bytes(content)


def _mistyped(dice: random.Random) -> bytes:
    """Contents that are not of the datatype."""
    contents = dice.choice(
        [
            oip.InferTensorContents(fp64_contents=[float("nan"), float("inf")]),
            oip.InferTensorContents(bool_contents=[True]),
            oip.InferTensorContents(int64_contents=[LARGEST, SMALLEST]),
            oip.InferTensorContents(uint64_contents=[2**64 - 1]),
            oip.InferTensorContents(bytes_contents=[b"\xff\xfe", b"", b"1"]),
            oip.InferTensorContents(int64_contents=[1], bytes_contents=[b"1"], fp32_contents=[0.5]),
            oip.InferTensorContents(),
        ]
    )
    datatype = dice.choice(["INT64", "BYTES", "FP64", "int64", "", "BOOL", "\u202e", "INT64 "])
    rows = dice.randint(0, 3)
    tensor = Tensor(name="user_id", datatype=datatype, shape=[rows], contents=contents)
    return bytes(oip.ModelInferRequest(model_name="churn", inputs=[tensor]).SerializeToString())


def _shaped(dice: random.Random) -> bytes:
    request = _valid(dice)
    del request.inputs[0].shape[:]
    request.inputs[0].shape.extend(dice.choice([[], [0], [-1], [LARGEST], [1, 1], [2] * 50, [SMALLEST], [3]]))
    return bytes(request.SerializeToString())


def _raw(dice: random.Random) -> bytes:
    """Values as raw bytes, which TorchServe drops: alone, or beside typed ones."""
    request = _valid(dice)
    if dice.random() < 0.7:
        request.inputs[0].ClearField("contents")
    request.raw_input_contents.append(dice.randbytes(dice.choice([0, 1, 8, 800])))
    return bytes(request.SerializeToString())


def _texts(dice: random.Random) -> bytes:
    texts = [dice.choice(ODD_TEXTS).encode("utf-8", "replace") for _ in range(dice.randint(1, 3))]
    contents = oip.InferTensorContents(bytes_contents=texts)
    tensor = Tensor(name="user_id", datatype="BYTES", shape=[len(texts)], contents=contents)
    request = oip.ModelInferRequest(model_name="churn", id=dice.choice(ODD_TEXTS), inputs=[tensor])
    if dice.random() < 0.5:
        value = dice.choice(
            [oip.InferParameter(string_param="x" * 500), oip.InferParameter(int64_param=SMALLEST)]
        )
        request.parameters[dice.choice(["features", "reasons", "\u0000", ""])].CopyFrom(value)
    return bytes(request.SerializeToString())


def _doubled(dice: random.Random) -> bytes:
    """Another number of tensors, other names, another model or version."""
    request = _valid(dice)
    match dice.randrange(5):
        case 0:
            request.inputs.append(request.inputs[0])
        case 1:
            del request.inputs[:]
        case 2:
            request.inputs[0].name = dice.choice(ODD_TEXTS)
        case 3:
            request.model_name = dice.choice(["", "none", "../churn", "churn/1.0"])
        case 4:
            request.model_version = dice.choice(["9.9", "latest", "../1"])
    return bytes(request.SerializeToString())


def _many(dice: random.Random) -> bytes:
    return bytes(infer(list(range(dice.choice([499, 500, 501, 5000])))).SerializeToString())


def _noise(dice: random.Random) -> bytes:
    return dice.randbytes(dice.choice([0, 1, 3, 50, 2000]))
