"""Strict JSON; each error names the field."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from handlers.protocol.messages import BadRequest


def decode(payload: Any) -> Any:
    """The value of a JSON text; a payload that is not text is returned unchanged. Raises BadRequest."""
    if not isinstance(payload, bytes | bytearray | str):
        return payload
    try:
        # Tools of Windows send a byte order mark before the text.
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
    """The values with null for NaN and infinities, which JSON does not have."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) < len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        raise BadRequest(f"body: the key {quoted(doubled)} occurs twice in one object")
    return body


def _not_a_number(constant: str) -> NoReturn:
    raise BadRequest(f"body: {constant} is not JSON")


# Made once, since json.loads and json.dumps make a new one at each call that has an option.
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_not_a_number)
_ENCODER = json.JSONEncoder(allow_nan=False)


def only(body: Mapping[str, Any], known: Sequence[str], field_name: str) -> None:
    """Raises BadRequest for an unknown key, since a misspelled key would otherwise be ignored."""
    for name in body:
        if name not in known:
            raise BadRequest(f"{field_name}: unknown key {quoted(str(name))}; known are {', '.join(known)}")


def below(field_name: str, name: str) -> str:
    """The path of the field `name` in the object at `field_name`."""
    return f"{field_name}.{name}" if field_name else name


def quoted(name: str) -> str:
    """A name from a body, for a message: 40 characters at most."""
    return json.dumps(name[:40])


def some(names: Iterable[str]) -> str:
    """The first 30 names, for a message."""
    listed = list(names)
    return ", ".join(listed[:30]) + (", ..." if len(listed) > 30 else "")


def kind(value: Any) -> str:
    """The kind of a JSON value, for a message, which never contains the value itself."""
    kinds = {bool: "a boolean", int: "an integer", float: "a number with a fraction", str: "a string"}
    kinds |= {list: "a list", dict: "an object", type(None): "null"}
    return kinds.get(type(value), "something else")
