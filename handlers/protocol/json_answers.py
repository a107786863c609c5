"""Answers with a JSON body, in all protocols except gRPC."""

import math
from collections.abc import Mapping
from typing import Any

from handlers.protocol import json_body
from handlers.protocol.messages import NO_HEADERS, Answer, Refusal


def json_answer(http_status: int, body: Any, headers: Mapping[str, str] = NO_HEADERS) -> Answer:
    """`body` as JSON. Raises ValueError for NaN and infinities."""
    return Answer(http_status, json_body.encode(body).encode(), headers)


def refuse(refusal: Refusal, where: str = "") -> Answer:
    """Refuses a whole request; `where` names the field in front of the error."""
    body = {"error": where + refusal.error} | ({"code": refusal.code} if refusal.code else {})
    return json_answer(refusal.http_status, body, headers_of(refusal))


def headers_of(refusal: Refusal) -> Mapping[str, str]:
    """When the client may try again, in whole seconds, if the refusal states it."""
    if refusal.retry_after_s is None:
        return NO_HEADERS
    return {"Retry-After": str(max(1, math.ceil(refusal.retry_after_s)))}
