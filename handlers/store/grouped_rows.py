"""Parses a customer's rows of Feast's SQLite table, which SQLite has concatenated: names and values in turn.

The pattern is made from the names. It does not match when a feature is absent, or not in the spec any more,
when a text contains the next name, or when bytes are not a value. `sqlite_feast_table` then reads the
customer's rows one by one.
"""

import re
from collections.abc import Sequence

_SHAPES = {
    # a null has no bytes; the first byte of a value is never the first byte of a name
    "int64": rb"( [\x80-\xff]{0,9}[\x00-\x7f]|)",
    "float64": rb"(\).{8}|)",
    "string": rb"(\x12.*?|)",
}


class GroupedRowParser:
    """Parses the rows of customers whose features are stored in the same order."""

    def __init__(self, order: Sequence[str], features: Sequence[tuple[str, str]]) -> None:
        """`order`: the names of `features` in the order of the rows. `features`: name and dtype."""
        dtypes = dict(features)
        pattern = b"".join(name.encode() + _SHAPES[dtypes[name]] for name in order)
        self._match = re.compile(pattern, re.DOTALL).fullmatch
        self._places = [order.index(name) for name, _ in features]
        self._in_order = self._places == sorted(self._places)
        self._texts = [order.index(name) for name, dtype in features if dtype == "string"]

    def __call__(self, joined: bytes | None) -> Sequence[bytes] | None:
        """A value per feature, in the order of `features`; None if the rows do not match or are ambiguous."""
        match = self._match(joined or b"")
        if match is None:
            return None
        values = match.groups()
        for place in self._texts:
            text = values[place]
            if text and len(text) != text[1] + 2:
                return None  # the text contains the next name, or has 128 bytes or more
        return values if self._in_order else [values[place] for place in self._places]
