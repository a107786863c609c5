"""Cleans chunks into standard columns and types. No row is lost: unusable rows are rejected with a reason."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import DataError
from data.cell import complaints, parse
from data.cell.notation import Notation
from data.config import DataConfig, TableSource
from data.prepare.target import Target
from data.source.columns import expressions_of, further_columns
from data.source.readers import public_uri

DUPLICATE = "duplicate"
IGNORED = "target is one of data.source.ignore"

Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Rejected:
    """Rows that cannot be used, with their cells as read."""

    cells: pa.Table
    """Text, under the names of standard and further columns. Identifiers are not masked yet."""
    places: pa.Array
    reasons: pa.Array


@dataclass(frozen=True)
class Cleaned:
    """The rows of a chunk, each in one of two tables. Rows that `where` leaves out are only counted."""

    records: pa.Table
    """The standard columns (identifiers not masked yet), then the further ones; rows in the source's order. A
    further column whose type is not decided yet is text or a number."""
    places: pa.Array
    """int64: the number of each row in the source, from 1."""
    rejected: Rejected


@dataclass
class Tally:
    """Counts and types over all chunks so far."""

    rows: int = 0
    left_out: int = 0
    unusable: int = 0
    reasons: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Reason -> number of rows, first row."""
    lost: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Column with a declared type -> number of values that do not fit it, number of values."""
    remedies: dict[str, str] = field(default_factory=dict)
    """Column with a declared type -> the setting that would make the lost values numbers."""
    kinds: dict[str, str] = field(default_factory=dict)
    """Further column without a declared type -> int64, float64 or string, inferred from its values so far."""
    gaps: set[str] = field(default_factory=set)
    """Further columns that have missing values."""

    def kind(self, name: str) -> str:
        """The type of a further column, after all chunks."""
        kind = self.kinds.get(name, "string")
        return "float64" if kind == "int64" and name in self.gaps else kind


class Cleaner:
    """Cleans a source's chunks in order. `types` are types of further columns that override the config's."""

    def __init__(
        self,
        config: DataConfig,
        source: TableSource,
        further: Collection[str] = (),
        types: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.config, self.source = config, source
        self.further = further_columns(config, source, further)
        self.types = {**source.types, **types}
        self.notation = Notation.of(source)
        self.tally = Tally()
        self.target = Target(source)
        self._computed, self._where, self._returns = expressions_of(source)

    def chunks(self, tables: Iterator[pa.Table]) -> Iterator[Cleaned]:
        """Clean each table. Raises DataError for a target that has too many values."""
        first = 1
        for table in tables:
            yield self.clean(table, first)
            first += table.num_rows

    def clean(self, table: pa.Table, first_row: int = 1) -> Cleaned:
        places = pa.array(np.arange(first_row, first_row + table.num_rows, dtype=np.int64))
        if self._where is not None:
            wanted = self._where.evaluate(table, self._numbers).fill_null(False)
            self.tally.left_out += table.num_rows - int(pc.sum(wanted).as_py() or 0)
            table, places = table.filter(wanted), pa.chunked_array([places]).filter(wanted).combine_chunks()
        given = self._given(table, places)
        verdict = _Verdict(np.zeros(table.num_rows, np.int16))
        ours = self._our_columns(given, table, verdict)
        usable = pa.array(verdict.code == 0)
        records = {name: column.filter(usable) for name, column in ours.items()}
        for name in self.further:
            records[name] = self._further_column(name, given[name].filter(usable))
        rejected = self._rejected(given, places, verdict)
        self.tally.rows += table.num_rows
        self._count(rejected)
        return Cleaned(pa.table(records), places.filter(usable), rejected)

    def _given(self, table: pa.Table, places: pa.Array) -> dict[str, pa.ChunkedArray]:
        """The source's cells under the names of standard and further columns."""
        given = {ours: table[theirs] for ours, theirs in self.source.columns.items()}
        given |= {name: e.evaluate(table, self._numbers) for name, e in self._computed.items()}
        if self.source.number_rows:
            given["user_id"] = pa.chunked_array([places])
        return given | {name: table[name] for name in self.further if name not in given}

    def _our_columns(
        self, given: Mapping[str, pa.ChunkedArray], table: pa.Table, verdict: "_Verdict"
    ) -> dict[str, pa.ChunkedArray]:
        ids = parse.identifiers(given["user_id"], self.source.user_id_type, self.notation)
        self._need("user_id", given["user_id"], ids, verdict, complaints.not_an_identifier)
        if self.config.shape == "labelled":
            return {"user_id": ids, **self._labelled(given, table.num_rows, verdict)}
        moments = self._moments("timestamp", given, verdict)
        amounts = self._numbers(given["amount"])
        self._need("amount", given["amount"], amounts, verdict, complaints.not_a_number, parse.numeric_texts)
        ours = {"timestamp": moments, "amount": amounts, "quantity": self._quantity(given, amounts, verdict)}
        returned = self._is_return(ours, table)
        references = {
            name: parse.identifiers(given[name], "string", self.notation)
            for name in ("order_id", "transaction_id")
            if name in given
        }
        return {"user_id": ids, **ours, "is_return": returned, **references}

    def _labelled(
        self, given: Mapping[str, pa.ChunkedArray], rows: int, verdict: "_Verdict"
    ) -> dict[str, pa.ChunkedArray]:
        target, ignored = self.target.read(given["target"])
        verdict.refuse(ignored, IGNORED)
        if "event_timestamp" in given:
            moments = self._moments("event_timestamp", given, verdict)
        else:
            moments = pa.chunked_array([pa.repeat(pa.scalar(self.config.observed_at, parse.MOMENT), rows)])
        self._need("target", given["target"], target, verdict, lambda cells, notation: "is not readable")
        return {"event_timestamp": moments, "target": target}

    def _moments(
        self, name: str, given: Mapping[str, pa.ChunkedArray], verdict: "_Verdict"
    ) -> pa.ChunkedArray:
        moments = parse.moments(given[name], self.notation)
        self._need(name, given[name], moments, verdict, complaints.not_a_date)
        return moments

    def _need(
        self,
        name: str,
        raw: pa.ChunkedArray,
        read: pa.ChunkedArray,
        verdict: "_Verdict",
        complaint: Callable[[pa.ChunkedArray, Notation], str],
        texts: Callable[[pa.ChunkedArray, Notation], pa.ChunkedArray] = lambda column, notation: parse.texts(
            column, notation.missing
        ),
    ) -> None:
        if not read.null_count:
            return
        present = texts(raw, self.notation).is_valid()
        verdict.refuse(pc.invert(present), f"{name} is missing")
        unreadable = pc.and_(present, read.is_null())
        if pc.any(unreadable).as_py():
            verdict.refuse(unreadable, f"{name} {complaint(raw.filter(unreadable), self.notation)}")

    def _quantity(
        self, given: Mapping[str, pa.ChunkedArray], amounts: pa.ChunkedArray, verdict: "_Verdict"
    ) -> pa.ChunkedArray:
        """The quantities [rows], 1 where the source has none."""
        if "quantity" not in given:
            return pa.chunked_array([pa.repeat(1.0, len(amounts))])
        value = self._numbers(given["quantity"])
        if value.null_count:
            present = parse.numeric_texts(given["quantity"], self.notation).is_valid()
            verdict.refuse(pc.and_(present, value.is_null()), "quantity is not a number")
        return value.fill_null(1.0)

    def _is_return(self, ours: Mapping[str, pa.ChunkedArray], table: pa.Table) -> pa.ChunkedArray:
        if self._returns is None:
            return pa.chunked_array([pa.repeat(False, table.num_rows)])
        read = {n: table[n] for n in self._returns.columns if n in table.column_names}
        numbers = {name: ours[name] for name in ("amount", "quantity")}
        return self._returns.evaluate(pa.table({**read, **numbers}), self._numbers).fill_null(False)

    def _further_column(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        kind = self.types.get(name)
        if kind is None:
            return self._of_open_type(name, column)
        value = parse.typed(column, kind, self.notation)
        if kind != "string":
            present = parse.numeric_texts(column, self.notation).is_valid()
            unreadable = column.filter(pc.and_(present, value.is_null()))
            lost, of = self.tally.lost.get(name, (0, 0))
            self.tally.lost[name] = (lost + len(unreadable), of + int(pc.sum(present).as_py() or 0))
            if len(unreadable) and (remedy := complaints.number_remedy(unreadable, self.notation)):
                self.tally.remedies.setdefault(name, remedy)
        return value

    def _of_open_type(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """The column without conversion to a final type; the possible type is recorded in the tally."""
        value = parse.inferred(column, self.notation)
        present = parse.numeric_texts(column, self.notation)
        if present.null_count:
            self.tally.gaps.add(name)
        if present.null_count < len(present):
            kind = {"int64": "int64", "double": "float64"}.get(str(value.type), "string")
            self.tally.kinds[name] = max(kind, self.tally.kinds.get(name, "int64"), key=_WIDENING.index)
        if pa.types.is_integer(column.type) and column.type != pa.uint64():
            return column.cast(pa.int64())
        return value if _is_number(column.type) else parse.texts(column, self.notation.missing)

    def _rejected(
        self, given: Mapping[str, pa.ChunkedArray], places: pa.Array, verdict: "_Verdict"
    ) -> Rejected:
        at = pa.array(np.flatnonzero(verdict.code))
        cells = pa.table({name: _as_read(column.take(at)) for name, column in given.items()})
        reasons = pa.array(verdict.reasons, pa.string()).take(pa.array(verdict.code[at.to_numpy()]))
        return Rejected(cells, places.take(at), reasons)

    def _count(self, rejected: Rejected) -> None:
        for reason, place in zip(rejected.reasons.to_pylist(), rejected.places.to_pylist(), strict=True):
            rows, first = self.tally.reasons.get(reason, (0, place))
            self.tally.reasons[reason] = (rows + 1, first)
            self.tally.unusable += reason != IGNORED

    def as_kind(self, column: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
        """Convert a column without a declared type to `kind`, which all chunks together decide."""
        if kind == "string":
            return parse.texts(column, self.notation.missing)
        return parse.typed(column, kind, self.notation)

    def _numbers(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        return parse.numbers(column, self.notation)


_WIDENING = ("int64", "float64", "string")


@dataclass
class _Verdict:
    """The first reason for which each row is rejected. Code 0 is a usable row."""

    code: np.ndarray[Any, np.dtype[np.int16]]
    reasons: list[str] = field(default_factory=lambda: [""])

    def refuse(self, rows: Any, reason: str) -> None:
        self.reasons.append(reason)
        self.code[np.asarray(rows, dtype=bool) & (self.code == 0)] = len(self.reasons) - 1


def clean(raw: pa.Table, source: TableSource, config: DataConfig, further: Collection[str] = ()) -> Cleaned:
    """Clean one table as a whole and check its target. Raises DataError for an invalid target."""
    cleaner = Cleaner(config, source, further)
    cleaned = cleaner.clean(raw)
    cleaner.target.check()
    return cleaned


def check_usable(
    tally: Tally, source: TableSource, types: Mapping[str, str], limit: float, records: int
) -> None:
    """Raise DataError, with a table of the reasons, when more than the share `limit` of the rows is unusable,
    or of a column's values does not fit the declared type."""
    uri = public_uri(source)
    if tally.rows == 0:
        raise DataError(f"{uri}: data.source.where leaves out all {tally.left_out:,} rows; correct it")
    if not records and not tally.unusable:
        raise DataError(f"{uri}: data.source.ignore sets all {tally.rows:,} rows aside; correct it")
    if tally.unusable > limit * tally.rows or not records:
        raise _too_many(tally, uri, limit)
    for name, (lost, values) in tally.lost.items():
        if lost > limit * values:
            raise DataError(
                f"{uri}: column {name!r} cannot be {types[name]}: {lost / values:.3g} of its values would be"
                f" lost, more than data.max_rejected_share {limit:g} allows;"
                f" {tally.remedies.get(name, '')}{' or ' if name in tally.remedies else ''}"
                f"set data.source.types.{name} to"
                f" string, or compute a number in data.source.computed"
            )


def _too_many(tally: Tally, uri: str, limit: float) -> DataError:
    table = [
        {"reason": reason, "rows": rows, "first_row": first}
        for reason, (rows, first) in sorted(tally.reasons.items(), key=lambda item: (-item[1][0], item[0]))
        if reason != IGNORED
    ]
    worst = table[0]
    return DataError(
        f"{uri}: {tally.unusable:,} of {tally.rows:,} rows cannot be used, more than"
        f" data.max_rejected_share {limit:g} allows; most often {worst['reason']}"
        f" ({worst['rows']:,} rows, the first is row {worst['first_row']})",
        table,
    )


def _as_read(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column if pa.types.is_string(column.type) else column.cast(pa.string())


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
