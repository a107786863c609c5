"""JSON as the protocols need it: strict, and every complaint names the field."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from handlers.protocol.messages import BadRequest


def decode(payload: Any) -> Any:
    """The value that a JSON text holds; what is not text comes back as it is. Raises BadRequest."""
    if not isinstance(payload, bytes | bytearray | str):
        return payload
    try:
        # Windows' tools put a byte order mark before what they send
        text = payload if isinstance(payload, str) else payload.decode("utf-8-sig")
        return _DECODER.decode(text)
    except BadRequest:
        raise
    except UnicodeDecodeError:
        raise BadRequest("body: not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise BadRequest(f"body: not JSON at character {error.pos}: {error.msg}") from None
    except ValueError:
        raise BadRequest("body: not JSON: a number with too many digits") from None
    except RecursionError:
        raise BadRequest("body: nested too deeply") from None


def encode(content: Any) -> str:
    """JSON text. Raises ValueError for NaN and infinities: see `jsonable`."""
    return _ENCODER.encode(content)


def jsonable(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: both read as missing."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) < len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        raise BadRequest(f"body: the key {quoted(doubled)} stands twice in one object")
    return body


def _not_a_number(constant: str) -> NoReturn:
    raise BadRequest(f"body: {constant} is not JSON")


# made once: json.loads and json.dumps build a new one a call as soon as an option is given
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_not_a_number)
_ENCODER = json.JSONEncoder(allow_nan=False)


def only(body: Mapping[str, Any], known: Sequence[str], field_name: str) -> None:
    """Raises BadRequest for an unknown key: a misspelled one would otherwise be dropped in silence."""
    for name in body:
        if name not in known:
            raise BadRequest(f"{field_name}: unknown key {quoted(str(name))}; known are {', '.join(known)}")


def below(field_name: str, name: str) -> str:
    """The field `name` of the object at `field_name`."""
    return f"{field_name}.{name}" if field_name else name


def quoted(name: str) -> str:
    return json.dumps(name[:40])


def some(names: Iterable[str]) -> str:
    """As many names as a message has room for."""
    listed = list(names)
    return ", ".join(listed[:30]) + (", ..." if len(listed) > 30 else "")


def kind(value: Any) -> str:
    """What a JSON value is, in JSON's words: the value itself never goes into a message."""
    kinds = {bool: "a boolean", int: "an integer", float: "a number with a fraction", str: "a string"}
    kinds |= {list: "a list", dict: "an object", type(None): "null"}
    return kinds.get(type(value), "something else")
