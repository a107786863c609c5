"""Types of requests and answers that do not depend on the protocol.

A parser makes a `Request` of a body, the predictor an `Outcome` for each customer, a writer an `Answer`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from handlers.settings import WorkerSettings

MAX_ID_LENGTH = 256
MAX_TEXT_LENGTH = 1024
MAX_EXPLAINED = WorkerSettings.max_explained
"""Default limit of customers in a request for reasons: each needs up to ten calls of the program, and its
batch waits for them."""
MAX_BODY_BYTES = WorkerSettings.max_request_bytes
DEFAULT_REASONS = 3
JSON = "application/json"
UserId = int | str
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class BadRequest(ValueError):
    """A body that cannot be answered; the message names the field and what is expected there."""

    http_status = 400


class TooLarge(BadRequest):
    """A body with more bytes than the limit after decompression."""

    http_status = 413


class UnsupportedEncoding(BadRequest):
    """A body with a compression that the server does not support."""

    http_status = 415


class NotServed(BadRequest):
    """The request names a model or a version that this server does not have."""

    http_status = 404


@dataclass(frozen=True)
class Rules:
    """What a body may contain: types of the model and limits of the server."""

    id_type: str
    max_instances: int
    types: Mapping[str, str] = field(default_factory=dict)
    """Stored feature -> its declared type, int64, float64 or string."""
    derived: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Derived feature -> the two stored features from which it is computed."""
    model_name: str = ""
    model_version: str = ""
    """The only ones that a gRPC request may name; empty: any."""
    max_explained: int = MAX_EXPLAINED
    """Customers in a request for reasons, at most."""
    max_body_bytes: int = MAX_BODY_BYTES
    """Bytes of a body after decompression, at most."""


class Call(NamedTuple):
    """What the headers of a request state."""

    request_id: str = ""
    explain: bool = False
    """The URL is that of explanations."""
    grpc: bool = False
    """Received by TorchServe's own gRPC server, which passes BYTES of a tensor in base64."""
    encoding: str = ""
    """HTTP's Content-Encoding."""
    headers: Mapping[str, str] = NO_HEADERS
    """Headers of the request that a protocol declares in `Protocol.headers`; names are in lower case."""
    rpc: str = ""
    """The gRPC method whose message is the body, passed by the gateway; empty for REST."""
    grpc_encoding: str = ""
    """The compression of a gRPC message whose flag states that it is compressed."""
    traceparent: str = ""
    """W3C Trace Context, as received."""
    probe: str = ""
    """Value of PROBE_HEADER (handlers/identity.py); empty: no gateway has counted the request."""
    received: float = 0.0
    """Unix time in seconds at which our gateway received it, if requests are traced; 0: unknown."""


@dataclass(frozen=True, slots=True)
class Wants:
    """What the answer contains beside the score."""

    features: bool = False
    reasons: int = 0
    """How many at most; 0: none."""
    explanation: bool = False
    age: bool = False
    """Age of the features; only if `parameters.features` is given, since it differs in each answer."""


class Output(NamedTuple):
    """A tensor that an Open Inference request names, and whether its values are sent as raw bytes."""

    name: str
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """The customers of a request, and the form of its answer."""

    protocol: str
    """`Protocol.name`."""
    user_ids: tuple[UserId, ...]
    """In the order of the request; of the declared type, or already masked."""
    overrides: tuple[Mapping[str, Any], ...] = ()
    """Feature values in place of those in the store, a mapping for each user id; empty: none."""
    wants: Wants = Wants()
    id: str | None = None
    datatype: Literal["INT64", "BYTES"] = "INT64"
    outputs: tuple[Output, ...] = ()
    """v2: the tensors of the answer, in their order; empty: all, as JSON."""
    rpc: str = ""
    """The gRPC method whose message is the answer; empty: JSON, followed by raw tensors if requested."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """How features contribute to a score, in log-odds against those of a typical customer."""

    attributions: Mapping[str, float]
    """Stored feature -> its contribution to the log-odds; a derived feature counts for its parts."""
    base_log_odds: float
    log_odds: float
    additivity_gap: float
    """|base_log_odds + the sum of the attributions - log_odds|."""
    method: Literal["exact", "permutation"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The score of one customer, and what else was requested."""

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
    """A word for programs; every 503 has one."""
    retry_after_s: float | None = None


class Answer(NamedTuple):
    """The answer to one request; `headers` does not contain the content type."""

    http_status: int
    body: bytes
    headers: Mapping[str, str] = NO_HEADERS
    content_type: str = JSON


Outcome = Prediction | Refusal


class Route(NamedTuple):
    """A path of the gateway to which bodies of a protocol are sent."""

    name: str
    """Unique; logs and metrics of Envoy contain it."""
    path: str
    """With `{model}` in place of the model's name."""
    torchserve_path: str = ""
    """The path at TorchServe; empty: the same. `/predictions/{model}` accepts every protocol."""


@dataclass(frozen=True, slots=True, eq=False)
class Protocol:
    """One form of requests and answers; `protocols.PROTOCOLS` lists them all."""

    name: str
    """Unique; the label `protocol` of `churn_requests_total`."""
    parse: Callable[[Any, Rules, Call], Request]
    """The request of a body, which is a JSON value. Raises BadRequest."""
    respond: Callable[[Request, Sequence[Outcome], str, str], Answer]
    """The answer of a request with an outcome for each user id, in the same order; then name and version of
    the model."""
    key: str = ""
    """The key by which a JSON object is recognized as a body of this protocol."""
    list_field: str = ""
    """The field with the list of customers, if each of them can be refused within an answer of status 200."""
    frame: tuple[str, str] | None = None
    """Text before and after the customers' objects, which `, ` separates, in an answer that contains only
    scores. None: such answers have another form, and `fast_path` leaves them to `respond`."""
    headers: tuple[str, ...] = ()
    """Names in lower case of the headers that `is_encoded` and `parse_encoded` read in `Call.headers`."""
    is_encoded: Callable[[Call], bool] = lambda _: False
    """Whether `Call.rpc` or `Call.headers` state that the body is of this protocol, in a form that is not
    JSON."""
    parse_encoded: Callable[[bytes, Rules, Call], Request] | None = None
    """The request of such a body. Raises BadRequest."""
    routes: tuple[Route, ...] = ()
    """The gateway's paths for HTTP. Each path accepts every protocol."""


UNKNOWN_CALL = Call()
PLAIN = Wants()
SHOWN = Wants(features=True)
