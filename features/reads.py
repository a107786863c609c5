"""Finds the columns that an expression reads, case-sensitively, and binds the expression to them.

DuckDB treats `Quantity` and `quantity` as one column, so it never gets names as they are written. sqlglot
finds the places where an expression names a column, and only these are replaced by unique aliases. A name
that sqlglot missed matches no column and is an error, so that a wrong column is never read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache

from sqlglot import exp, parse
from sqlglot.errors import ParseError, SqlglotError

_CLOCKS = (exp.CurrentDate, exp.CurrentTime, exp.CurrentTimestamp, exp.Localtime, exp.Localtimestamp)
_RANDOM = (exp.Rand, exp.Uuid)
_UNSTABLE_FUNCTIONS = {
    *("now", "transaction_timestamp", "get_current_timestamp", "get_current_time"),
    *("random", "setseed", "nextval", "currval", "getvariable", "getenv"),
}


@dataclass(frozen=True)
class Reading:
    """An expression and the places where it names a column."""

    sql: str
    places: tuple[tuple[int, int, str], ...]
    """Start, end (exclusive) and name of each, ascending."""

    @property
    def columns(self) -> frozenset[str]:
        return frozenset(name for _, _, name in self.places)

    def bound(self, aliases: Mapping[str, str]) -> str:
        """The expression with each column's name replaced by its quoted alias. Raises KeyError for a column
        without alias."""
        pieces, at = [], 0
        for start, end, name in self.places:
            pieces += [self.sql[at:start], quoted(aliases[name])]
            at = end
        return "".join([*pieces, self.sql[at:]])


@lru_cache(maxsize=4096)
def reading(sql: str) -> Reading:
    """Parse one expression. Raises ValueError that states what is not allowed in it."""
    try:
        trees = parse(sql, dialect="duckdb")
    except SqlglotError as error:
        raise ValueError(_sentence(error)) from None
    if len(trees) != 1 or trees[0] is None:
        raise ValueError("not one expression")
    tree = trees[0]
    _refuse(tree)
    places = {_place(sql, column) for column in tree.find_all(exp.Column)}
    return Reading(sql, tuple(sorted(places)))


def quoted(name: str) -> str:
    """A quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("'", "''") + "'"


def unknown(name: str, known: Iterable[str]) -> str:
    """The message about a missing column, with columns of similar names."""
    by_lower = {other.lower(): other for other in known}
    close = get_close_matches(name.lower(), by_lower, n=3) or sorted(by_lower)[:10]
    return f"there is no column {name!r}; did you mean {', '.join(by_lower[key] for key in close)}?"


def _refuse(tree: exp.Expr) -> None:
    if tree.find(exp.Query, exp.Subquery):
        raise ValueError("a query is not allowed, only an expression over columns")
    if tree.find(exp.Window):
        raise ValueError("a window (OVER) is not allowed: it would read other customers' rows")
    stars = tree.find_all(exp.Star)
    if tree.find(exp.Columns) or any(not isinstance(star.parent, exp.Count) for star in stars):
        raise ValueError("name the columns; * is allowed only in count(*)")
    called = {function.name.lower() for function in tree.find_all(exp.Anonymous)}
    if tree.find(*_CLOCKS, *_RANDOM) or called & _UNSTABLE_FUNCTIONS:
        raise ValueError("clock and random functions give another value at each build; read a column instead")
    if tree.find(exp.Alias, exp.Placeholder, exp.Parameter):
        raise ValueError("a name (AS) or a parameter is not allowed")


def _place(sql: str, column: exp.Column) -> tuple[int, int, str]:
    """The place of the column's name: the part before the first dot. The rest are fields of a struct."""
    identifier = column.parts[0]
    start, end = identifier.meta.get("start"), identifier.meta.get("end")
    if start is None or end is None or _unquoted(sql[start : end + 1]) != identifier.name:
        raise ValueError(f"column {identifier.name}: write it in double quotes")
    return start, end + 1, identifier.name


def _unquoted(text: str) -> str:
    return text[1:-1].replace('""', '"') if text.startswith('"') else text


def _sentence(error: SqlglotError) -> str:
    if isinstance(error, ParseError) and error.errors:
        first = error.errors[0]
        return f"not an SQL expression (line {first['line']}, column {first['col']})"
    return "not an SQL expression (a quote or a bracket is not closed)"
