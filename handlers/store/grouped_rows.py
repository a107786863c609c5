"""A customer's rows of Feast's SQLite table, which SQLite joins into one: names and values in turn.

A pattern made from the names parses it. It does not fit where a feature is absent or no longer in use, where
a text looks like the next name, and where bytes are no value: `online_sqlite` reads such a customer row by
row.
"""

import re
from collections.abc import Sequence

_SHAPES = {
    # a null has no bytes at all; the first byte of a value is never one that a name begins with
    "int64": rb"( [\x80-\xff]{0,9}[\x00-\x7f]|)",
    "float64": rb"(\).{8}|)",
    "string": rb"(\x12.*?|)",
}


class GroupedRowParser:
    """Of customers whose rows come in one order."""

    def __init__(self, order: Sequence[str], features: Sequence[tuple[str, str]]) -> None:
        """`order`: exactly the names of `features`."""
        dtypes = dict(features)
        pattern = b"".join(name.encode() + _SHAPES[dtypes[name]] for name in order)
        self._match = re.compile(pattern, re.DOTALL).fullmatch
        self._places = [order.index(name) for name, _ in features]
        self._in_order = self._places == sorted(self._places)
        self._texts = [order.index(name) for name, dtype in features if dtype == "string"]

    def __call__(self, joined: bytes | None) -> Sequence[bytes] | None:
        """A value a feature in the order of the spec; None if the pattern does not tell for certain."""
        match = self._match(joined or b"")
        if match is None:
            return None
        values = match.groups()
        for place in self._texts:
            text = values[place]
            if text and len(text) != text[1] + 2:
                return None  # it holds what looks like the next name, or is longer than one byte can say
        return values if self._in_order else [values[place] for place in self._places]
