"""Cleans chunks into standard columns and types. No row is lost: unusable rows are rejected with a reason."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.cell import complaints, parse
from data.cell.notation import Notation
from data.config import DataConfig, TableSource
from data.prepare.further import FurtherColumns
from data.prepare.tally import IGNORED, Tally
from data.prepare.target import Target
from data.source.columns import expressions_of, further_columns

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


class Cleaner:
    """Cleans a source's chunks in order. `types` are types of further columns that override the config's."""

    def __init__(
        self,
        config: DataConfig,
        source: TableSource,
        further: Collection[str] = (),
        types: Mapping[str, str] = MappingProxyType({}),
        until: datetime | None = None,
    ) -> None:
        self.config, self.source = config, source
        self.notation = Notation.of(source)
        names, declared = further_columns(config, source, further), {**source.types, **types}
        self.further = FurtherColumns(names, declared, self.notation)
        self.tally = Tally()
        self.target = Target(source)
        self._computed, self._where, self._returns = expressions_of(source)
        self._until = until

    def chunks(self, tables: Iterator[pa.Table]) -> Iterator[Cleaned]:
        """Clean each table. Raises DataError for a target that has too many values."""
        first = 1
        for table in tables:
            yield self.clean(table, first)
            first += table.num_rows

    def clean(self, table: pa.Table, first_row: int = 1) -> Cleaned:
        places = pa.array(np.arange(first_row, first_row + table.num_rows, dtype=np.int64))
        if self._until is not None:
            table, places = self._known(table, places, self._until)
        if self._where is not None:
            wanted = self._where.evaluate(table, self._numbers).fill_null(False)
            self.tally.left_out += table.num_rows - int(pc.sum(wanted).as_py() or 0)
            table, places = table.filter(wanted), pa.chunked_array([places]).filter(wanted).combine_chunks()
        given = self._given(table, places)
        verdict = _Verdict(np.zeros(table.num_rows, np.int16), self.notation)
        ours = self._our_columns(given, table, verdict)
        usable = pa.array(verdict.code == 0)
        records = {name: column.filter(usable) for name, column in ours.items()}
        for name in self.further.names:
            records[name] = self.further.read(name, given[name].filter(usable))
        rejected = self._rejected(given, places, verdict)
        self.tally.add(table.num_rows, rejected.reasons, rejected.places)
        return Cleaned(pa.table(records), places.filter(usable), rejected)

    def _known(self, table: pa.Table, places: pa.Array, until: datetime) -> tuple[pa.Table, pa.Array]:
        """The rows before `until`, and those whose time cannot be read. The others are not counted at all, so
        that the result is that of a source without them."""
        name = "timestamp" if self.config.shape == "transactions" else "event_timestamp"
        given = self._given(table, places)
        if name not in given:
            return table, places
        moments = parse.moments(given[name], self.notation)
        before = pc.less(moments, pa.scalar(until, parse.MOMENT)).fill_null(True)
        return table.filter(before), pa.chunked_array([places]).filter(before).combine_chunks()

    def _given(self, table: pa.Table, places: pa.Array) -> dict[str, pa.ChunkedArray]:
        """The source's cells under the names of standard and further columns."""
        given = {ours: table[theirs] for ours, theirs in self.source.columns.items()}
        given |= {name: e.evaluate(table, self._numbers) for name, e in self._computed.items()}
        if self.source.number_rows:
            given["user_id"] = pa.chunked_array([places])
        return given | {name: table[name] for name in self.further.names if name not in given}

    def _our_columns(
        self, given: Mapping[str, pa.ChunkedArray], table: pa.Table, verdict: "_Verdict"
    ) -> dict[str, pa.ChunkedArray]:
        ids = parse.identifiers(given["user_id"], self.source.user_id_type, self.notation)
        verdict.require("user_id", given["user_id"], ids, complaints.not_an_identifier)
        if self.config.shape == "labelled":
            return {"user_id": ids, **self._labelled(given, table.num_rows, verdict)}
        moments = self._moments("timestamp", given, verdict)
        amounts = self._numbers(given["amount"])
        verdict.require("amount", given["amount"], amounts, complaints.not_a_number, parse.numeric_texts)
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
        verdict.require("target", given["target"], target, lambda cells, notation: "is not readable")
        return {"event_timestamp": moments, "target": target}

    def _moments(
        self, name: str, given: Mapping[str, pa.ChunkedArray], verdict: "_Verdict"
    ) -> pa.ChunkedArray:
        moments = parse.moments(given[name], self.notation)
        verdict.require(name, given[name], moments, complaints.not_a_date)
        return moments

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

    def _rejected(
        self, given: Mapping[str, pa.ChunkedArray], places: pa.Array, verdict: "_Verdict"
    ) -> Rejected:
        at = pa.array(np.flatnonzero(verdict.code))
        cells = pa.table({name: _as_read(column.take(at)) for name, column in given.items()})
        reasons = pa.array(verdict.reasons, pa.string()).take(pa.array(verdict.code[at.to_numpy()]))
        return Rejected(cells, places.take(at), reasons)

    def _numbers(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        return parse.numbers(column, self.notation)


def _texts(column: pa.ChunkedArray, notation: Notation) -> pa.ChunkedArray:
    return parse.texts(column, notation.missing)


@dataclass
class _Verdict:
    """The first reason for which each row is rejected. Code 0 is a usable row."""

    code: np.ndarray[Any, np.dtype[np.int16]]
    notation: Notation
    reasons: list[str] = field(default_factory=lambda: [""])

    def require(
        self,
        name: str,
        raw: pa.ChunkedArray,
        read: pa.ChunkedArray,
        complaint: Callable[[pa.ChunkedArray, Notation], str],
        texts: Callable[[pa.ChunkedArray, Notation], pa.ChunkedArray] = _texts,
    ) -> None:
        """Reject the rows where `read` is null: as missing where `texts` of the cells `raw` is null too, else
        with the complaint about unreadable cells.
        """
        if not read.null_count:
            return
        present = texts(raw, self.notation).is_valid()
        self.refuse(pc.invert(present), f"{name} is missing")
        unreadable = pc.and_(present, read.is_null())
        if pc.any(unreadable).as_py():
            self.refuse(unreadable, f"{name} {complaint(raw.filter(unreadable), self.notation)}")

    def refuse(self, rows: Any, reason: str) -> None:
        self.reasons.append(reason)
        self.code[np.asarray(rows, dtype=bool) & (self.code == 0)] = len(self.reasons) - 1


def clean(raw: pa.Table, source: TableSource, config: DataConfig, further: Collection[str] = ()) -> Cleaned:
    """Clean one table as a whole and check its target. Raises DataError for an invalid target."""
    cleaner = Cleaner(config, source, further)
    cleaned = cleaner.clean(raw)
    cleaner.target.check()
    return cleaned


def _as_read(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column if pa.types.is_string(column.type) else column.cast(pa.string())
