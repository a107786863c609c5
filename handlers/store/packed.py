"""The format of packed rows: one row per customer in a table beside Feast's own table in SQLite.

Feast stores a row per customer and feature. The lookup of twenty-two rows is most of the cost of a
prediction. Therefore features/packing.py writes a second table with the same values:

    <table>__packed_<layout>   entity_key, numbers, texts

`numbers` contains, little-endian: the event time of the oldest value (int64, seconds of UTC), a byte per
feature (1 if it has a value), and a float64 per number feature, NaN for null. `texts` is a JSON list of the
string features, or null when the spec has none. Triggers on Feast's table delete a customer's packed row in
the transaction that changes one of the customer's rows, whichever program writes. A packed row that exists is
therefore up to date. A customer has no packed row when a value does not fit (an integer above 2**53, a value
of another type), or when Feast's rows have changed since. Such customers are read from Feast's table.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

NO_MOMENT = -(2**63)
"""In place of the event time of a customer who is not in the store."""
MOST_EXACT = 2**53
"""A float64 represents every integer up to this one exactly."""
CHANGES = {"INSERT": ("NEW",), "UPDATE": ("OLD", "NEW"), "DELETE": ("OLD",)}
"""Statement that changes a row of Feast's table -> the versions of the row whose customers it affects."""


class Layout:
    """The place of each feature of a spec in a packed row."""

    def __init__(self, features: Sequence[tuple[str, str]]) -> None:
        """`features`: name and dtype (int64, float64, string), in the order of the spec."""
        self.features = tuple(features)
        self.names = tuple(name for name, _ in features)
        self.numbers = tuple(name for name, dtype in features if dtype != "string")
        self.texts = tuple(name for name, dtype in features if dtype == "string")
        self.whole = frozenset(name for name, dtype in features if dtype == "int64")
        self.at = {name: at for at, name in enumerate(self.names)}
        self.place = {name: at for at, name in enumerate(self.numbers)}
        self.dtype = np.dtype(
            [
                ("moment", "<i8"),
                ("there", "u1", (len(features),)),
                ("numbers", "<f8", (len(self.numbers),)),
            ]
        )
        self.absent = (
            self._row([None] * len(features), NO_MOMENT, [math.nan] * len(self.numbers)),
            json.dumps([None] * len(self.texts)).encode(),
        )
        described = json.dumps(["packed 2", *self.features])
        self.digest = hashlib.sha256(described.encode()).hexdigest()[:12]

    def table(self, feast_table: str) -> str:
        return f"{feast_table}__packed_{self.digest}"

    def triggers(self, feast_table: str) -> dict[str, str]:
        """Name -> statement. Packed rows are used only if all three triggers exist."""
        packed, feast = quoted(self.table(feast_table)), quoted(feast_table)
        statements = {}
        for change, rows in CHANGES.items():
            name = f"{self.table(feast_table)}_{change.lower()}"
            drops = "".join(
                f"DELETE FROM {packed} WHERE entity_key = {row}.entity_key; "  # noqa: S608
                for row in rows
            )
            statements[name] = f"CREATE TRIGGER {quoted(name)} AFTER {change} ON {feast} BEGIN {drops}END"
        return statements

    def pack(
        self, columns: Mapping[str, Sequence[Any]], moments: Sequence[int]
    ) -> list[tuple[bytes, bytes | None] | None]:
        """`numbers` and `texts` of each customer; None for a customer whose values do not fit.

        `columns`: feature -> a value per customer, None for null and for an absent value. `moments`: seconds
        of UTC.
        """
        by_customer = zip(*(columns[name] for name in self.names), strict=True)
        return [self._packed(values, moment) for values, moment in zip(by_customer, moments, strict=True)]

    def _packed(self, values: Sequence[Any], moment: int) -> tuple[bytes, bytes | None] | None:
        numbers, texts = [], []
        for (_, dtype), value in zip(self.features, values, strict=True):
            if dtype == "string":
                texts.append(value)
            elif value is None:
                numbers.append(math.nan)
            elif type(value) is float if dtype == "float64" else _is_exact(value):
                numbers.append(value)
            else:
                return None
        as_json = json.dumps(texts, ensure_ascii=False).encode() if self.texts else None
        return self._row(values, moment, numbers), as_json

    def texts_in(self, content: bytes | None) -> list[str | None]:
        """The string features of a packed row. Raises ValueError or TypeError when `content` is damaged."""
        texts = json.loads(content or b"null")
        if not isinstance(texts, list) or len(texts) != len(self.texts):
            raise ValueError("packed texts of another number")
        return texts

    def _row(self, values: Sequence[Any], moment: int, numbers: Sequence[float]) -> bytes:
        row = np.zeros((), dtype=self.dtype)
        row["moment"] = moment
        row["there"] = [value is not None for value in values]
        row["numbers"] = numbers
        return row.tobytes()


def _is_exact(value: Any) -> bool:
    return type(value) is int and abs(value) <= MOST_EXACT


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
