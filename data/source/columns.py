"""Which columns of a source enter the records: mapped, declared, computed, or read by features."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from core.errors import DataError
from data.config import DataConfig, TableSource
from data.source.readers import public_uri

if TYPE_CHECKING:
    from data.cell.expression import Expression

STANDARD_COLUMNS = {
    "transactions": ("user_id", "timestamp", "amount", "quantity", "is_return"),
    "labelled": ("user_id", "event_timestamp", "target"),
}
REFERENCE_COLUMNS = ("transaction_id", "order_id")
"""Standard columns that identify transactions and orders. They are not stored in the records."""


def further_columns(config: DataConfig, source: TableSource, read: Collection[str] = ()) -> tuple[str, ...]:
    """The non-standard columns of the records: in `types`, `keep`, `computed`, then those that features
    `read`.

    A mapped column is stored under its standard name only. Raises DataError for a name that differs from a
    standard or another further column only in case, because databases treat both as one column.
    """
    ours = (*STANDARD_COLUMNS[config.shape], *(name for name in REFERENCE_COLUMNS if name in source.given))
    names = dict.fromkeys([*source.types, *source.keep, *source.computed, *sorted(read)])
    further = [name for name in names if name not in ours and name not in source.columns.values()]
    seen = {name.casefold(): name for name in ours}
    for name in further:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            whose = "ours" if other in ours else "the table"
            raise DataError(
                f"{public_uri(source)}: column {name!r} and {other!r} of {whose} differ only in case, and are"
                f" one column to a database; read it under another name: data.source.computed"
                f" {{{name.casefold()}_2: '\"{name}\"'}}"
            )
    return tuple(further)


def columns_to_read(config: DataConfig, source: TableSource, read: Collection[str] = ()) -> tuple[str, ...]:
    """The further columns to read from the source, for `data.source.sources.open_source`."""
    return tuple(name for name in further_columns(config, source, read) if name not in source.computed)


def expressions_of(
    source: TableSource,
) -> "tuple[dict[str, Expression], Expression | None, Expression | None]":
    """The parsed expressions of `computed`, `where` and `returns`."""
    if not (source.computed or source.where or source.returns):
        return {}, None, None
    from data.cell.expression import condition, parse

    computed = {name: parse(text) for name, text in source.computed.items()}
    where, returns = (None if text is None else condition(text) for text in (source.where, source.returns))
    return computed, where, returns
