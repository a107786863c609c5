"""Canonical types, and no row lost: what cannot be used is set aside with the reason."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from data import parse
from data.config import DataConfig, TableSource
from data.errors import DataError
from data.readers import public_uri

OURS = {
    "transactions": ("user_id", "timestamp", "amount", "quantity"),
    "labelled": ("user_id", "event_timestamp", "target"),
}
DUPLICATE = "duplicate"
ROWS_A_BATCH = 500_000

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Cleaned:
    records: pa.Table
    """Our columns first (identifiers not masked yet), then the further ones, in the order of the source."""
    rejected: pa.Table
    """Rows as read, under the source's names, with `row` (its number in the source, from 1) and `reason`."""
    rows: int

    @property
    def unusable(self) -> int:
        """Rejected rows without those that were merely repeated, which the config asks to drop."""
        return int(pc.sum(pc.not_equal(self.rejected["reason"], DUPLICATE)).as_py() or 0)


def clean(raw: pa.Table, source: TableSource, config: DataConfig) -> Cleaned:
    """Raises DataError for repeated rows under `duplicates: refuse` and for a target that is not binary."""
    ours, verdict = _our_columns(raw, source, config)
    _judge_duplicates(raw, ours["user_id"], source, config, verdict)
    kept = pa.array(verdict.code == 0)
    further = [name for name in _further(raw, source, config) if name not in source.columns.values()]
    written = _notation(source)
    records = {name: column.filter(kept) for name, column in ours.items()}
    for name in further:
        column = raw[name].filter(kept)
        kind = source.types.get(name)
        records[name] = parse.typed(column, kind, *written) if kind else parse.inferred(column, *written)
    shown = [n for n in raw.column_names if n in source.columns.values() or n in further]
    return Cleaned(pa.table(records), _rejected(raw.select(shown), verdict), raw.num_rows)


def check_rejected_share(cleaned: Cleaned, uri: str, limit: float) -> None:
    """Raises DataError, with a table of the reasons, when more than `limit` of the rows cannot be used."""
    if cleaned.unusable <= limit * cleaned.rows and cleaned.records.num_rows:
        return
    reasons = cleaned.rejected.group_by("reason").aggregate([("row", "count"), ("row", "min")]).to_pylist()
    table = [
        {"reason": r["reason"], "rows": r["row_count"], "first_row": r["row_min"]}
        for r in sorted(reasons, key=lambda r: (-r["row_count"], r["reason"]))
        if r["reason"] != DUPLICATE
    ]
    worst = table[0]
    raise DataError(
        f"{uri}: {cleaned.unusable:,} of {cleaned.rows:,} rows cannot be used, more than"
        f" data.max_rejected_share {limit:g} allows; most often {worst['reason']}"
        f" ({worst['rows']:,} rows, the first is row {worst['first_row']})",
        table,
    )


@dataclass
class _Verdict:
    """Why each row is refused: the first reason found counts; code 0 is a row that stays."""

    code: np.ndarray[Any, np.dtype[np.int8]]
    reasons: list[str] = field(default_factory=lambda: [""])

    def refuse(self, rows: Any, reason: str) -> None:
        self.reasons.append(reason)
        self.code[np.asarray(rows, dtype=bool) & (self.code == 0)] = len(self.reasons) - 1

    def need(self, column: str, raw: pa.ChunkedArray, read: pa.ChunkedArray, complaint: str) -> None:
        if read.null_count:
            self.refuse(parse.texts(raw).is_null(), f"{column} is missing")
            self.refuse(read.is_null(), f"{column} {complaint}")


def _our_columns(
    raw: pa.Table, source: TableSource, config: DataConfig
) -> tuple[dict[str, pa.ChunkedArray], _Verdict]:
    verdict = _Verdict(np.zeros(raw.num_rows, np.int8))
    theirs = source.columns
    date_format = source.options.get("date_format")
    written = _notation(source)

    ids = parse.identifiers(raw[theirs["user_id"]], source.user_id_type)
    verdict.need("user_id", raw[theirs["user_id"]], ids, "is not an integer (data.source.user_id_type)")
    ours = {"user_id": ids}
    if config.shape == "transactions":
        moments = parse.moments(raw[theirs["timestamp"]], date_format)
        amounts = parse.numbers(raw[theirs["amount"]], *written)
        verdict.need("timestamp", raw[theirs["timestamp"]], moments, _NOT_A_DATE)
        verdict.need("amount", raw[theirs["amount"]], amounts, "is not a number")
        return ours | {
            "timestamp": moments,
            "amount": amounts,
            "quantity": _quantity(raw, source, verdict),
        }, verdict
    if "event_timestamp" in theirs:
        moments = parse.moments(raw[theirs["event_timestamp"]], date_format)
        verdict.need("event_timestamp", raw[theirs["event_timestamp"]], moments, _NOT_A_DATE)
    else:
        moments = pa.chunked_array([pa.repeat(pa.scalar(config.observed_at, parse.MOMENT), raw.num_rows)])
    target = _target(raw[theirs["target"]], source)
    verdict.need("target", raw[theirs["target"]], target, "is not readable")
    return ours | {"event_timestamp": moments, "target": target}, verdict


_NOT_A_DATE = "is not an ISO 8601 date (or data.source.options.date_format)"


def _quantity(raw: pa.Table, source: TableSource, verdict: _Verdict) -> pa.ChunkedArray:
    """1 where the source says nothing."""
    if "quantity" not in source.columns:
        return pa.chunked_array([pa.repeat(1.0, raw.num_rows)])
    column = raw[source.columns["quantity"]]
    value = parse.numbers(column, *_notation(source))
    if value.null_count:
        said = parse.texts(column).is_valid()
        verdict.refuse(pc.and_(said, value.is_null()), "quantity is not a number")
    return value.fill_null(1.0)


def _target(column: pa.ChunkedArray, source: TableSource) -> pa.ChunkedArray:
    """int8: 1 where the value is `positive`, 0 where it is the other one."""
    text = parse.texts(column)
    values: list[str] = sorted(text.drop_null().unique().to_pylist())
    churned = [value for value in values if _plain(value) == _plain(source.positive)]  # type: ignore[arg-type]
    name = f"column {source.columns['target']!r} (target)"
    there = ", ".join(repr(value) for value in values[:8]) + (", ..." if len(values) > 8 else "")
    if len({_plain(value) for value in values}) > 2:
        raise DataError(
            f"{name} has {len(values)} values, not two: {there}; map data.source.columns.target to another"
        )
    if values and not churned:
        quoted = ", in quotes" if isinstance(source.positive, bool) else ""  # YAML reads Yes as true
        raise DataError(
            f"{name} never is {source.positive!r}: there are {there};"
            f" set data.source.positive to one of them{quoted}"
        )
    if len(churned) == len(values) > 0:
        raise DataError(f"{name} is always {there}; a model needs customers who stayed as well")
    return pc.if_else(text.is_valid(), pc.is_in(text, pa.array(churned, pa.string())), None).cast(pa.int8())


def _plain(value: str | float) -> str | float:
    """1, 1.0, "1" and true are one value, however YAML, CSV and Parquet spell it."""
    text = str(value).strip()
    if text.lower() in ("true", "false"):
        return float(text.lower() == "true")
    try:
        return float(text)
    except ValueError:
        return text


def _judge_duplicates(
    raw: pa.Table, ids: pa.ChunkedArray, source: TableSource, config: DataConfig, verdict: _Verdict
) -> None:
    """Among the usable rows the first of equals stays."""
    if source.duplicates == "keep":
        return
    if config.shape == "labelled":
        equal, compared = "have the user_id of a row above", [ids]
    elif "transaction_id" in source.columns:
        equal, compared = "have the transaction_id of a row above", [raw[source.columns["transaction_id"]]]
    else:
        equal, compared = "equal a row above in every column", raw.columns
    rows = pa.table([parse.texts(column) for column in compared], [str(i) for i in range(len(compared))])
    repeated = _repeated(rows, verdict.code == 0)
    if "transaction_id" in source.columns:
        repeated &= np.asarray(rows[0].is_valid())  # without one, nothing says they are equal
    if repeated.any() and source.duplicates == "refuse":
        ways = "drop" if config.shape == "labelled" else "drop or keep"
        raise DataError(
            f"{public_uri(source)}: {repeated.sum():,} rows {equal} (first: row {repeated.argmax() + 1});"
            f" remove them or set data.source.duplicates to {ways}"
        )
    verdict.refuse(repeated, DUPLICATE)


def _repeated(rows: pa.Table, usable: Mask) -> Mask:
    """Which usable rows equal a usable one above. Hashes find the candidates, the texts themselves decide."""
    hashes = [
        pd.util.hash_pandas_object(batch.to_pandas(), index=False, categorize=False)
        for batch in rows.to_batches(max_chunksize=ROWS_A_BATCH)
    ]
    hashed = pd.concat(hashes, ignore_index=True)[usable]
    suspects = np.sort(hashed.index[hashed.duplicated(keep=False)].to_numpy())
    repeated = np.zeros(rows.num_rows, bool)
    repeated[suspects] = rows.take(pa.array(suspects)).to_pandas().duplicated().to_numpy()
    return repeated


def _further(raw: pa.Table, source: TableSource, config: DataConfig) -> list[str]:
    """A labelled table's other columns are its features; of a log we take only those with a type given."""
    mapped = source.columns.values()
    names = [
        n for n in raw.column_names if n not in mapped and (config.shape == "labelled" or n in source.types)
    ]
    if taken := [n for n in names if n in OURS[config.shape]]:
        raise DataError(
            f"{public_uri(source)}: column {taken[0]!r} has the name of one of ours; rename it or map it"
        )
    return names


def _rejected(raw: pa.Table, verdict: _Verdict) -> pa.Table:
    rows = np.flatnonzero(verdict.code)
    names = [f"{n} (source)" if n in ("row", "reason") else n for n in raw.column_names]
    table = raw.take(pa.array(rows)).rename_columns(names)
    reasons = pa.array(verdict.reasons, pa.string()).take(pa.array(verdict.code[rows]))
    return table.append_column("row", pa.array(rows + 1, pa.int64())).append_column("reason", reasons)


def _notation(source: TableSource) -> tuple[str, str | None]:
    return source.options.get("decimal", "."), source.options.get("thousands")
