"""Reads the further (not standard) columns of a source, whose types are declared or inferred."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import DataError
from data.cell import complaints, parse
from data.cell.notation import Notation
from data.cell.text import is_number

_WIDENING = ("int64", "float64", "string")


@dataclass
class FurtherColumns:
    """Reads chunks of the columns. The types of columns without a declared type follow from all chunks."""

    names: tuple[str, ...]
    declared: Mapping[str, str]
    """Column -> declared type: int64, float64 or string."""
    notation: Notation
    _lost: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Column with a declared type -> number of values that do not fit it, number of values."""
    _remedies: dict[str, str] = field(default_factory=dict)
    """Column with a declared type -> the setting that would make the lost values numbers."""
    _inferred: dict[str, str] = field(default_factory=dict)
    """Column without a declared type -> int64, float64 or string, inferred from its values so far."""
    _gaps: set[str] = field(default_factory=set)
    """Columns without a declared type that have missing values."""

    def read(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """One chunk in the declared type. Without one it is text or a number; `convert` makes it final."""
        kind = self.declared.get(name)
        if kind is None:
            return self._of_open_type(name, column)
        value = parse.typed(column, kind, self.notation)
        if kind != "string":
            present = parse.numeric_texts(column, self.notation).is_valid()
            unreadable = column.filter(pc.and_(present, value.is_null()))
            lost, of = self._lost.get(name, (0, 0))
            self._lost[name] = (lost + len(unreadable), of + int(pc.sum(present).as_py() or 0))
            if len(unreadable) and (remedy := complaints.number_remedy(unreadable, self.notation)):
                self._remedies.setdefault(name, remedy)
        return value

    def kind(self, name: str) -> str:
        """The type of a column, after all chunks."""
        if name in self.declared:
            return self.declared[name]
        kind = self._inferred.get(name, "string")
        return "float64" if kind == "int64" and name in self._gaps else kind

    def convert(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Convert a chunk of a column without a declared type to its `kind`."""
        if self.kind(name) == "string":
            return parse.texts(column, self.notation.missing)
        return parse.typed(column, self.kind(name), self.notation)

    def check(self, uri: str, limit: float) -> None:
        """Raise DataError when more than the share `limit` of a column's values does not fit its type."""
        for name, (lost, values) in self._lost.items():
            if lost <= limit * values:
                continue
            remedy = f"{self._remedies[name]} or " if name in self._remedies else ""
            raise DataError(
                f"{uri}: column {name!r} cannot be {self.declared[name]}: {lost / values:.3g} of its values"
                f" would be lost, more than data.max_rejected_share {limit:g} allows; {remedy}set"
                f" data.source.types.{name} to string, or compute a number in data.source.computed"
            )

    def _of_open_type(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        value = parse.inferred(column, self.notation)
        present = parse.numeric_texts(column, self.notation)
        if present.null_count:
            self._gaps.add(name)
        if present.null_count < len(present):
            kind = {"int64": "int64", "double": "float64"}.get(str(value.type), "string")
            self._inferred[name] = max(kind, self._inferred.get(name, "int64"), key=_WIDENING.index)
        if pa.types.is_integer(column.type) and column.type != pa.uint64():
            return column.cast(pa.int64())
        return value if is_number(column.type) else parse.texts(column, self.notation.missing)
