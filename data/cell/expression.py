"""Expressions over the columns of a source: `Quantity * UnitPrice`, `"Order Status" <> 'Cancelled'`.

The grammar is a small part of SQL: numbers, 'texts', true and false, columns (bare, or "in double quotes"),
`+ - * / ||`, comparisons, `in`, `between`, `like`, `is null`, `and`, `or`, `not`, `case when`, and the
functions abs, round, lower, upper, trim, replace, coalesce, nullif. Names of columns are case-sensitive.

The context of a cell decides how it is read. In arithmetic, or compared with a number, it is a number in the
source's notation. Compared with a text, it is the text as written. As a condition, it is true or false (also
yes/no, 1/0). Two columns are ordered as numbers, and are equal if they are equal as numbers or as texts. A
cell that is blank, or cannot be read in this way, is null. A result computed from null is null, as in SQL.
"""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, TokenError

from data.cell.expression_nodes import (
    Evaluate,
    Kind,
    Numbers,
    column_name,
    compiled,
    kind_of,
    without_brackets,
)


@dataclass(frozen=True)
class Expression:
    text: str
    columns: frozenset[str]
    """The columns that the expression reads, as written."""
    kind: Kind | None
    """The kind of its values; None for a bare column, whose cells are returned unchanged."""
    _evaluate: Evaluate

    def evaluate(self, table: pa.Table, numbers: Numbers) -> pa.ChunkedArray:
        """One value per row: float64, string or bool; for a bare column the column itself.

        `numbers` parses a column of numbers. Raises KeyError when `table` lacks one of `columns`.
        """
        value = self._evaluate(table, numbers)
        if isinstance(value, pa.Scalar):
            value = pa.repeat(value, table.num_rows)
        return value if isinstance(value, pa.ChunkedArray) else pa.chunked_array([value])


def parse(text: str) -> Expression:
    """Parse an expression. Raises ValueError that states what is wrong and where."""
    node = _tree(text)
    names = frozenset(column.name for column in node.find_all(exp.Column))
    if isinstance(node, exp.Column):
        name = column_name(node)
        return Expression(text, names, None, lambda table, numbers: table[name])
    kind = kind_of(node) or "text"
    return Expression(text, names, kind, compiled(node, kind))


def condition(text: str) -> Expression:
    """Parse an expression that is true or false for a row. Raises ValueError like `parse`."""
    parsed = parse(text)
    if parsed.kind not in ("truth", None):
        raise ValueError(
            f"{text!r} gives a {parsed.kind}; write a condition, true or false of a row, such as a < 0"
        )
    return Expression(text, parsed.columns, "truth", compiled(_tree(text), "truth"))


def _tree(text: str) -> Any:
    if not text.strip():
        raise ValueError("the expression is empty; write one, or remove the key")
    try:
        return without_brackets(sqlglot.parse_one(text, dialect="duckdb"))
    except ParseError as error:
        first = error.errors[0]
        place = f" at character {first['col']}" if first.get("col") else ""
        near = f" near {first['highlight']!r}" if first.get("highlight") else ""
        raise ValueError(f"{text!r} cannot be read{place}{near}; correct the expression") from None
    except TokenError:
        raise ValueError(f"{text!r} cannot be read: a quote is not closed") from None
