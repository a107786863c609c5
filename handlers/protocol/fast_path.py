"""A faster way for the most frequent request: the score of a customer, without any option.

To parse such a body as JSON and write its answer key by key takes longer than to score it. So a body with one
customer and nothing else is matched by a regular expression, and an answer in which all scores are from
features that are `ok` is filled into a template, if the protocol has a `frame`. The results are those of
`protocols`: the same `Request`, and the template is made of an answer that `protocols` wrote. All other
bodies and answers, all errors included, are left to `protocols`.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

from handlers.protocol import protocols
from handlers.protocol.fields import checked_id
from handlers.protocol.instances import NATIVE, V1
from handlers.protocol.messages import PLAIN, SHOWN, Answer, Call, Prediction, Request, Rules, UserId

_ID = rb'(?:(-?(?:0|[1-9][0-9]{0,17}))|"([!#-\[\]-~]{1,256})")'  # printable ASCII without quote and backslash
_INSTANCE = rb'\{ "user_id" : ' + _ID + rb" \}"


def _pattern(spaced: bytes) -> re.Pattern[bytes]:
    """A pattern that accepts JSON's white space at each space of `spaced`."""
    return re.compile(spaced.replace(b" ", rb"[ \t\n\r]*"))


_NATIVE = _pattern(b" " + _INSTANCE + b" ")
_V1 = _pattern(rb' \{ "instances" : \[ ' + _INSTANCE + rb" \] \} ")

_NATIVE_NAME, _V1_NAME = NATIVE.name, V1.name
_FRAMES = {one.name: one.frame for one in protocols.PROTOCOLS.values() if one.frame is not None}
_SCORE, _USER = 0.12345678901234566, 1234567890123456789
_DECISIONS: tuple[Literal["Low Risk", "High Risk"], ...] = ("Low Risk", "High Risk")


def read(body: Any, rules: Rules, call: Call) -> Request | None:
    """The request of a body that contains one customer and nothing else; None for every other body.

    Raises BadRequest as `protocols.parse` does.
    """
    if call.explain or call.encoding or call.rpc or call.headers or not isinstance(body, bytes):
        return None
    if (match := _V1.fullmatch(body)) is not None:
        protocol, where, wants = _V1_NAME, "instances[0]", PLAIN
    elif (match := _NATIVE.fullmatch(body)) is not None:
        protocol, where, wants = _NATIVE_NAME, "", SHOWN
    else:
        return None
    number, text = match.groups()
    value: UserId = int(number) if text is None else text.decode("ascii")
    return Request(protocol, (checked_id(value, where, rules.id_type),), (), wants)


class Template:
    """Answers of one model, in which each customer has a score from features that are ok."""

    def __init__(self, model_name: str, model_version: str, threshold: float) -> None:
        self.threshold = threshold
        self._instances = [
            _cut(
                protocols.respond(
                    Request(_NATIVE_NAME, (_USER,), (), PLAIN),
                    [Prediction(_SCORE, decision, threshold, "ok")],
                    model_name,
                    model_version,
                ).body.decode()
            )
            for decision in _DECISIONS
        ]

    def fits(self, request: Request) -> bool:
        """Whether the answer contains scores only. `PLAIN` is compared by identity, which is quicker."""
        return request.wants is PLAIN and request.protocol in _FRAMES

    def answer(self, request: Request, scores: Sequence[float]) -> Answer:
        """`scores`: a finite score for each user id of `request`, in the same order."""
        instances, threshold = self._instances, self.threshold
        texts = []
        for user_id, score in zip(request.user_ids, scores, strict=True):
            before, between, after = instances[score > threshold]
            name = user_id if type(user_id) is int else json.dumps(user_id)
            texts.append(f"{before}{name}{between}{score!r}{after}")
        first, last = _FRAMES[request.protocol]
        return Answer(200, f"{first}{', '.join(texts)}{last}".encode())


def _cut(text: str) -> tuple[str, str, str]:
    """The text before the customer, between customer and score, and after the score."""
    before, _, rest = text.partition(str(_USER))
    between, found, after = rest.partition(repr(_SCORE))
    assert found, text
    return before, between, after
