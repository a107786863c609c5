"""What a request asks for and what it is answered, in no protocol in particular.

The parsers make a `Request` of a body, the predictor an `Outcome` of each customer, the writers an `Answer`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

MAX_ID_LENGTH = 256
MAX_TEXT_LENGTH = 1024
MAX_EXPLAINED = 20
"""Customers a request that asks for reasons, by default: each costs up to ten calls of the program, and a
batch waits."""
MAX_BODY_BYTES = 1_048_576
DEFAULT_REASONS = 3
JSON = "application/json"
UserId = int | str
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class BadRequest(ValueError):
    """A body that cannot be answered; the message names the field and what belongs there."""

    http_status = 400


class TooLarge(BadRequest):
    """More bytes than the server takes, once they are decompressed."""

    http_status = 413


class UnsupportedEncoding(BadRequest):
    """A body that is compressed in a way that the server does not read."""

    http_status = 415


class NotServed(BadRequest):
    """Another model, or a version of it, than this server has."""

    http_status = 404


@dataclass(frozen=True)
class Rules:
    """What a body may hold; made once from the bundle and the server's limits."""

    id_type: str
    max_instances: int
    types: Mapping[str, str] = field(default_factory=dict)
    """Stored feature -> its declared type, int64, float64 or string."""
    derived: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Derived feature -> the two stored ones that it is made of."""
    model_name: str = ""
    model_version: str = ""
    """What a gRPC request may name; empty: nothing is compared."""
    max_explained: int = MAX_EXPLAINED
    """Customers a request that asks for reasons."""
    max_body_bytes: int = MAX_BODY_BYTES
    """Of a body that came compressed, once it is not."""


class Call(NamedTuple):
    """What the server knows of a request beside its body."""

    request_id: str = ""
    explain: bool = False
    """Asked at an address for explanations."""
    grpc: bool = False
    """Over TorchServe's own gRPC, which hands BYTES of a tensor over in base64."""
    encoding: str = ""
    """HTTP's Content-Encoding."""
    json_length: int | None = None
    """Inference-Header-Content-Length: bytes of JSON before those of tensors (Triton's binary extension)."""
    rpc: str = ""
    """The gRPC method that the body is a message of, as the gateway passes it on; empty: it is REST's."""
    grpc_encoding: str = ""
    """How a gRPC message is compressed if its flag says that it is."""
    traceparent: str = ""
    """W3C Trace Context, as it came in."""
    probe: str = ""
    """What a question of our own says of its way (handlers/identity.py); empty: no gateway counted it."""
    received: float = 0.0
    """Unix time in seconds at which our gateway received it, while requests are traced; 0: not known."""


@dataclass(frozen=True, slots=True)
class Wants:
    """What goes into the answer beside the score."""

    features: bool = False
    reasons: int = 0
    """How many at most; 0: none."""
    explanation: bool = False
    age: bool = False
    """Of the features: only when `parameters.features` is given, since the age changes with each call."""


class Output(NamedTuple):
    """A tensor that an Open Inference request names, and whether its values go as raw bytes."""

    name: str
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """Whose churn is asked for, and how the answer has to look."""

    protocol: Literal["native", "native_list", "v1", "v2"]
    user_ids: tuple[UserId, ...]
    """As asked, in the order asked; of the declared type, or masked already."""
    overrides: tuple[Mapping[str, Any], ...] = ()
    """Feature values that stand in for the store's, one mapping a user id; empty: none are given."""
    wants: Wants = Wants()
    id: str | None = None
    datatype: Literal["INT64", "BYTES"] = "INT64"
    outputs: tuple[Output, ...] = ()
    """v2: the tensors of the answer in their order; empty: all, as JSON."""
    rpc: str = ""
    """The gRPC method that the answer is a message of; empty: JSON, with raw tensors behind it if asked."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why the score is what it is: log-odds against those of a typical customer."""

    attributions: Mapping[str, float]
    """Stored feature -> how much it adds to the log-odds; derived features count as their parts."""
    base_log_odds: float
    log_odds: float
    additivity_gap: float
    """|base_log_odds + the sum of the attributions - log_odds|."""
    method: Literal["exact", "permutation"]


@dataclass(frozen=True, slots=True)
class Prediction:
    churn_probability: float
    prediction: Literal["High Risk", "Low Risk"]
    threshold: float
    status: str
    """Of the features: ok, stale, degraded or unknown."""
    status_reason: str | None = None
    overridden: tuple[str, ...] = ()
    features: Mapping[str, Any] | None = None
    feature_age_s: float | None = None
    reasons: tuple[str, ...] | None = None
    explanation: Explanation | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request, or one customer in it, gets no score."""

    http_status: int
    error: str
    code: str | None = None
    """One word for programs; every 503 has one."""
    retry_after_s: float | None = None


class Answer(NamedTuple):
    """What goes back to one caller: the body, an HTTP status and headers beside the content type."""

    http_status: int
    body: bytes
    headers: Mapping[str, str] = NO_HEADERS
    content_type: str = JSON


Outcome = Prediction | Refusal

UNKNOWN_CALL = Call()
PLAIN = Wants()
SHOWN = Wants(features=True)
