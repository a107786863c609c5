"""The features of a labelled table: columns, types and names, and why other columns are left out."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from churn.init import words
from churn.init.belief import Notes
from churn.init.columns import Column
from churn.init.leaks import revealing
from churn.init.target import Target
from features.spec import LOG_COLUMNS, RESERVED_NAMES, TABLE_COLUMNS

RESERVED = RESERVED_NAMES | LOG_COLUMNS | {"order_id", "transaction_id", "user", "row", "reason"}
"""Names that have a meaning here, which a feature must not have."""
CODE_VALUES = 60
"""Up to this number of values, whole numbers with a name such as `Area Code` are categories."""


@dataclass(frozen=True)
class Feature:
    """One line of `features.features`, and the settings of ingest for its column."""

    column: str
    line: dict[str, Any]
    kind: str | None = None
    """For `data.source.types`; None if ingest finds the same type."""
    comment: str = ""
    alias: str | None = None
    """The new name of a column whose name is reserved, or differs from another one only in case."""


@dataclass
class Names:
    """Gives each column a valid name of a feature that no other column has, not even in another case."""

    taken: set[str] = field(default_factory=lambda: set(RESERVED))

    def safe(self, name: str) -> str:
        bare = re.sub(r"[^A-Za-z0-9_]+", "_", words.without_accents(name)).strip("_")
        bare = bare if bare and not bare[0].isdigit() else f"column_{bare}".rstrip("_")
        chosen, number = bare, 2
        if bare.lower() in RESERVED or bare.lower() in words.SQL:
            chosen = f"{bare}_column" if f"{bare.lower()}_column" not in self.taken else f"{bare}_{number}"
        while chosen.lower() in self.taken:
            chosen, number = f"{bare}_{number}", number + 1
        self.taken.add(chosen.lower())
        return chosen


def features_of(
    columns: Sequence[Column],
    target: Target,
    taken: Collection[str],
    descriptions: dict[str, str],
    whole: bool,
    notes: Notes,
) -> list[Feature]:
    """A feature for each column that is informative and does not reveal the target."""
    names = Names()
    found: list[Feature] = []
    read = {name.casefold() for name in TABLE_COLUMNS}
    for column in columns:
        if column.name in taken or column.name == target.column.name:
            continue
        if reason := reason_to_omit(column, target):
            notes.left_out[column.name] = reason
            continue
        clashes = column.name.casefold() in read
        name = names.safe(column.name)
        source = name if clashes else column.name
        read.add(source.casefold())
        feature = _feature(column, name, source, descriptions, whole)
        if clashes:
            kind = feature.kind or (None if "sql" in feature.line else str(feature.line["dtype"]))
            feature = replace(feature, alias=name, kind=kind)
        found.append(feature)
    return found


def reason_to_omit(column: Column, target: Target) -> str | None:
    """Why a column is no feature, or None."""
    if column.distinct == 0:
        return "it is empty"
    if column.distinct == 1 and column.present == 1:
        return f"its value is always {column.values[0]!r}"
    if _is_personal(column):
        return "it looks like personal data"
    if reason := revealing(column, target.churned):
        return reason
    if column.present < 0.005:
        return "it is almost always missing"
    if column.dates is not None and not (
        column.numeric and column.dates.dates == "iso" and not _dated(column)
    ):
        return None
    if column.numeric:
        if column.whole and column.unique > 0.98 and column.distinct > 100:
            named = words.mentions(column.name, words.IDENTIFIER) or _dense(column)
            if named or (column.unique == 1.0 and _dense(column)):
                return "it numbers the rows"
        if column.whole and words.mentions(column.name, "id uuid guid") and column.distinct > CODE_VALUES:
            return f"an identifier with {column.distinct:,} values"
        return None
    return _text_left_out(column)


def _dated(column: Column) -> bool:
    return words.mentions(column.name, words.TIME)


def _dense(column: Column) -> bool:
    """Whether whole numbers have almost no gaps, as those of a counter."""
    known = column.numbers[np.isfinite(column.numbers)]
    return bool(known.max() - known.min() < 1.5 * len(known))


def _text_left_out(column: Column) -> str | None:
    most = max(30, min(1000, column.rows // 20))
    if column.distinct <= min(most, max(30, column.rows // 4)):
        return None
    long = sum(value.count(" ") >= 3 for value in column.values[:200])
    if long > 60:
        return "it is free text"
    if column.unique > 0.9:
        return "an identifier: nearly every value occurs once"
    return f"{column.distinct:,} values are too many for a category"


def _is_personal(column: Column) -> bool:
    """Whether the name or the values indicate personal data."""
    if column.numeric and not words.mentions(column.name, "phone* mobile* telefon* tel ssn passport*"):
        return False
    sample = column.values[:100]
    if sample and sum(bool(words.DESCRIBES_PERSON.match(v)) for v in sample) > len(sample) / 2:
        return True
    if column.distinct <= 10 and column.rows > 100:
        return False  # `Phone Service: Yes, No`
    if words.mentions(column.name, words.PERSONAL):
        return column.unique > 0.02 or column.distinct > 50
    tokens = words.tokens(column.name)
    about_person = all(words.mentions(token, words.NAME_WORDS) for token in tokens)
    return "name" in "".join(tokens) and about_person and column.distinct > 50


def _feature(column: Column, name: str, source: str, descriptions: dict[str, str], whole: bool) -> Feature:
    """`source` is the column's name in the records."""
    quoted = '"' + source.replace('"', '""') + '"'
    sql = None if name == source else quoted
    meaning = descriptions.get(column.name, "") or " ".join(_readable(column.name))
    if column.dates is not None and not (column.numeric and not _dated(column)):
        return _since(column, name, quoted, meaning)
    if column.percent:
        sql = f"try_cast(replace(rtrim({quoted}, '% '), ',', '.') as double)"
        return Feature(column.name, _line(name, "float64", f"{meaning}, in percent", sql), "string")
    if column.numeric and not is_category(column):
        complete = column.present == 1 and whole and not column.gaps and _integers(column)
        description = f"{meaning}, {column.shown()}"
        if complete:
            known = column.numbers[np.isfinite(column.numbers)]
            line = _line(name, "int64", description, sql, default=int(np.median(known)))
            return Feature(column.name, line)
        kind = "float64" if column.stored_as_text else None
        return Feature(column.name, _line(name, "float64", description, sql), kind)
    description = f"{meaning}: {column.shown()}" if len(column.shown()) < 60 else meaning
    comment = "a code, not a number" if column.numeric else ""
    if column.numeric and not column.stored_as_text:
        sql = f"cast({quoted} as varchar)"
    kind = "string" if column.stored_as_text and (column.numeric or column.dates is not None) else None
    return Feature(column.name, _line(name, "string", description, sql), kind, comment)


def _integers(column: Column) -> bool:
    """Whether whole numbers are written without a point; ingest reads 7.0 as a float."""
    if not column.stored_as_text:
        return bool(pa.types.is_integer(column.kind))
    return column.whole and bool(column.texts.str.fullmatch(r"[+-]?\d+").all())


def is_category(column: Column) -> bool:
    """Whether whole numbers are codes, not counts: by leading zeros, or by a word in the name."""
    if column.leading_zeros:
        return True
    few = column.distinct <= CODE_VALUES and column.distinct > 2
    return column.whole and few and words.mentions(column.name, words.CODE)


def _since(column: Column, name: str, quoted: str, meaning: str) -> Feature:
    """Days from the moment in the column to the moment of the row."""
    dates = column.dates
    assert dates is not None
    spelled = {"day_first": "%d/%m/%Y", "month_first": "%m/%d/%Y"}
    if column.stored is not None and not column.stored_as_text and not column.numeric:
        zoned = "timestamptz" if dates.zoned else "timestamp"
        moment = f"epoch(try_cast({quoted} as {zoned}))"
    elif dates.dates.startswith("epoch_"):
        unit = {"s": "1", "ms": "1e3", "us": "1e6", "ns": "1e9"}[dates.dates.removeprefix("epoch_")]
        moment = f"{quoted} / {unit}"
    elif dates.dates == "iso" and column.numeric:
        moment = f"epoch(try_strptime(cast({quoted} as varchar), '%Y%m%d'))"
    elif dates.dates == "iso":
        zoned = "timestamptz" if dates.zoned else "timestamp"
        moment = f"epoch(try_cast({quoted} as {zoned}))"
    else:
        spelling = spelled.get(dates.dates, dates.dates)
        separator = next((c for c in (column.values[0] if column.values else "/") if c in "/.-"), "/")
        if dates.dates in spelled:
            spelling = spelling.replace("/", separator)
            short = not re.search(r"\d{4}", column.values[0])
            spelling = spelling.replace("%Y", "%y") if short else spelling
            text = f"regexp_extract({quoted}, '^[0-9./-]+')"
        else:
            text = quoted
        moment = f"epoch(try_strptime({text}, '{spelling}'))"
    sql = f"(epoch(event_timestamp) - {moment}) / 86400"
    kind = "string" if column.stored_as_text and not dates.dates.startswith("epoch_") else None
    name = name if words.mentions(name, "days") else f"days_since_{name}"
    return Feature(column.name, _line(name, "float64", f"days since {meaning}", sql), kind)


def _line(
    name: str, dtype: str, description: str, sql: str | None, default: int | None = None
) -> dict[str, Any]:
    line: dict[str, Any] = {"name": name, "dtype": dtype}
    if default is not None:
        line["default"] = default
    if sql:
        line["sql"] = sql
    line["description"] = " ".join(description.split())[:100]
    return line


def _readable(name: str) -> tuple[str, ...]:
    return tuple(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").strip().lower().split())
