"""The nodes of an expression: the kind of their values, and how Arrow computes them."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from data.cell import parse as cells

Kind = Literal["number", "text", "truth"]
Numbers = Callable[[pa.ChunkedArray], pa.ChunkedArray]
"""Reads a column as float64 in the notation of its source."""
Evaluate = Callable[[pa.Table, Numbers], Any]

TRUE, FALSE = ["true", "t", "yes", "y", "1"], ["false", "f", "no", "n", "0"]


def without_brackets(node: Any) -> Any:
    while isinstance(node, exp.Paren):
        node = node.this
    return node


def kind_of(node: Any) -> Kind | None:
    """The kind of a node's values; None when nothing in the node decides how its columns are read."""
    node = without_brackets(node)
    if isinstance(node, exp.Literal):
        return "text" if node.is_string else "number"
    if isinstance(node, exp.Add | exp.Sub | exp.Mul | exp.Div | exp.Neg | exp.Abs | exp.Round):
        return "number"
    if isinstance(node, exp.DPipe | exp.Lower | exp.Upper | exp.Trim | exp.Replace):
        return "text"
    if isinstance(node, exp.Coalesce | exp.Nullif | exp.Case):
        return next((kind for kind in map(kind_of, _alternatives(node)) if kind), None)
    return None if isinstance(node, exp.Column | exp.Null) else "truth"


def _alternatives(node: Any) -> list[Any]:
    """The nodes of which one gives the value of this node."""
    if isinstance(node, exp.Coalesce):
        return [node.this, *node.expressions]
    if isinstance(node, exp.Nullif):
        return [node.this, node.expression]
    default = node.args.get("default")
    return [case.args["true"] for case in node.args["ifs"]] + ([default] if default is not None else [])


def compiled(node: Any, wanted: Kind) -> Evaluate:
    """A function that computes the node as the kind `wanted`.

    Raises ValueError when the node is of another kind, or not part of the grammar.
    """
    node = without_brackets(node)
    if isinstance(node, exp.Null):
        return lambda table, numbers: pa.scalar(None, _ARROW[wanted])
    if isinstance(node, exp.Column):
        return _column(column_name(node), wanted)
    if type(node) not in _COMPILERS:
        raise ValueError(f"{_sql(node)!r} is not part of the grammar in data/cell/expression.py")
    found = kind_of(node) or wanted
    if found != wanted:
        raise ValueError(f"{_sql(node)!r} is a {found} where a {wanted} is needed; do not mix them")
    return _COMPILERS[type(node)](node, wanted)


_ARROW = {"number": pa.float64(), "text": pa.string(), "truth": pa.bool_()}


def column_name(node: Any) -> str:
    if node.table:
        raise ValueError(f'{_sql(node)!r}: write a name that holds a dot as "{node.table}.{node.name}"')
    return str(node.name)


def _sql(node: Any) -> str:
    return str(node.sql(dialect="duckdb"))


def _column(name: str, kind: Kind) -> Evaluate:
    read: dict[Kind, Evaluate] = {
        "number": lambda table, numbers: _number(table[name], numbers),
        "text": lambda table, numbers: cells.texts(table[name]),
        "truth": lambda table, numbers: _truth(table[name]),
    }
    return read[kind]


def _number(column: pa.ChunkedArray, numbers: Numbers) -> pa.ChunkedArray:
    return column.cast(pa.float64()) if pa.types.is_boolean(column.type) else numbers(column)


def _truth(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_boolean(column.type):
        return column
    text = pc.utf8_lower(pc.utf8_trim_whitespace(cells.texts(column)))
    known = pc.is_in(text, pa.array(TRUE + FALSE))
    return pc.if_else(known, pc.is_in(text, pa.array(TRUE)), None)


def _literal(node: Any, wanted: Kind) -> Evaluate:
    value = pa.scalar(str(node.this) if node.is_string else float(node.this), _ARROW[wanted])
    return lambda table, numbers: value


def _boolean(node: Any, wanted: Kind) -> Evaluate:
    value = pa.scalar(bool(node.this))
    return lambda table, numbers: value


def _binary(function: Callable[[Any, Any], Any], kind: Kind) -> Callable[[Any, Kind], Evaluate]:
    def compiler(node: Any, wanted: Kind) -> Evaluate:
        left, right = compiled(node.this, kind), compiled(node.expression, kind)
        return lambda table, numbers: function(left(table, numbers), right(table, numbers))

    return compiler


def _unary(function: Callable[[Any], Any], kind: Kind) -> Callable[[Any, Kind], Evaluate]:
    def compiler(node: Any, wanted: Kind) -> Evaluate:
        _refuse_further(node)
        value = compiled(node.this, kind)
        return lambda table, numbers: function(value(table, numbers))

    return compiler


def _refuse_further(node: Any, allowed: Sequence[str] = ("this",)) -> None:
    if further := [name for name, value in node.args.items() if value and name not in allowed]:
        raise ValueError(f"{_sql(node)!r}: this function does not take {further[0]!r} here")


def _divide(left: Any, right: Any) -> Any:
    """The quotient; null where the divisor is 0."""
    value = pc.divide(left, right)
    return pc.if_else(pc.is_finite(value), value, pa.scalar(None, pa.float64()))


def _compared(function: Callable[[Any, Any], Any]) -> Callable[[Any, Kind], Evaluate]:
    def compiler(node: Any, wanted: Kind) -> Evaluate:
        left, right = node.this, node.expression
        kind = _common_kind(node, [left, right])
        if kind is None and isinstance(node, exp.EQ | exp.NEQ):
            as_numbers = _comparison(function, left, right, "number")
            as_texts = _comparison(function, left, right, "text")
            return lambda table, numbers: pc.coalesce(as_numbers(table, numbers), as_texts(table, numbers))
        return _comparison(function, left, right, kind or "number")

    return compiler


def _comparison(function: Callable[[Any, Any], Any], left: Any, right: Any, kind: Kind) -> Evaluate:
    first, second = compiled(left, kind), compiled(right, kind)
    return lambda table, numbers: function(first(table, numbers), second(table, numbers))


def _common_kind(node: Any, parts: Sequence[Any]) -> Kind | None:
    for part in map(without_brackets, parts):
        if isinstance(part, exp.Literal) and part.is_string and not part.this.strip():
            raise ValueError(f"{_sql(node)!r}: a blank cell is missing and equals nothing; write `is null`")
        if isinstance(part, exp.Null):
            raise ValueError(f"{_sql(node)!r}: nothing equals null; write `is null` or `is not null`")
    kinds = {kind for kind in map(kind_of, parts) if kind}
    if len(kinds) > 1:
        raise ValueError(f"{_sql(node)!r} compares a {' with a '.join(sorted(kinds))}; do not mix them")
    return next(iter(kinds), None)


def _in(node: Any, wanted: Kind) -> Evaluate:
    values = [without_brackets(value) for value in node.expressions]
    plain = (exp.Literal, exp.Boolean, exp.Neg)
    if not values or not all(isinstance(value, plain) for value in values):
        raise ValueError(f"{_sql(node)!r}: write the values themselves in brackets")
    kind = _common_kind(node, [node.this, *values]) or "text"
    value, options = compiled(node.this, kind), [compiled(option, kind) for option in values]

    def evaluate(table: pa.Table, numbers: Numbers) -> Any:
        column = value(table, numbers)
        known = pa.array([option(table, numbers).as_py() for option in options], _ARROW[kind])
        return pc.if_else(pc.is_valid(column), pc.is_in(column, known), pa.scalar(None, pa.bool_()))

    return evaluate


def _between(node: Any, wanted: Kind) -> Evaluate:
    _refuse_further(node, ("this", "low", "high"))
    low, high = node.args["low"], node.args["high"]
    kind = _common_kind(node, [node.this, low, high]) or "number"
    above = _comparison(pc.greater_equal, node.this, low, kind)
    below = _comparison(pc.less_equal, node.this, high, kind)
    return lambda table, numbers: pc.and_kleene(above(table, numbers), below(table, numbers))


def _like(node: Any, wanted: Kind) -> Evaluate:
    pattern = without_brackets(node.expression)
    if not isinstance(pattern, exp.Literal) or not pattern.is_string:
        raise ValueError(f"{_sql(node)!r}: the pattern of `like` is a text in single quotes")
    value, sign, negated = compiled(node.this, "text"), str(pattern.this), bool(node.args.get("negate"))

    def evaluate(table: pa.Table, numbers: Numbers) -> Any:
        found = pc.match_like(value(table, numbers), sign)
        return pc.invert(found) if negated else found

    return evaluate


def _is(node: Any, wanted: Kind) -> Evaluate:
    if isinstance(node.expression, exp.Boolean):
        value, expected = compiled(node.this, "truth"), bool(node.expression.this)
        return lambda table, numbers: pc.equal(pc.coalesce(value(table, numbers), not expected), expected)
    if not isinstance(node.expression, exp.Null):
        raise ValueError(f"{_sql(node)!r}: `is` takes null, true or false; compare values with =")
    value = compiled(node.this, kind_of(node.this) or "text")
    return lambda table, numbers: pc.is_null(value(table, numbers))


def _round(node: Any, wanted: Kind) -> Evaluate:
    _refuse_further(node, ("this", "decimals"))
    decimals = node.args.get("decimals") or exp.Literal.number(0)
    if not isinstance(decimals, exp.Literal) or decimals.is_string or not str(decimals.this).isdigit():
        raise ValueError(f"{_sql(node)!r}: the number of decimals is a whole number")
    value, digits = compiled(node.this, "number"), int(decimals.this)
    return lambda table, numbers: pc.round(
        value(table, numbers), ndigits=digits, round_mode="half_towards_infinity"
    )


def _replace(node: Any, wanted: Kind) -> Evaluate:
    pattern, other = node.expression, node.args.get("replacement")
    if not all(isinstance(part, exp.Literal) and part.is_string for part in (pattern, other)):
        raise ValueError(f"{_sql(node)!r}: replace(column, 'text', 'other') takes texts in single quotes")
    value, old, new = compiled(node.this, "text"), str(pattern.this), str(other.this)
    return lambda table, numbers: pc.replace_substring(value(table, numbers), old, new)


def _coalesce(node: Any, wanted: Kind) -> Evaluate:
    parts = [compiled(part, wanted) for part in _alternatives(node)]
    return lambda table, numbers: pc.coalesce(*(part(table, numbers) for part in parts))


def _nullif(node: Any, wanted: Kind) -> Evaluate:
    value, missing = compiled(node.this, wanted), compiled(node.expression, wanted)

    def evaluate(table: pa.Table, numbers: Numbers) -> Any:
        given = value(table, numbers)
        equal = pc.coalesce(pc.equal(given, missing(table, numbers)), False)
        return pc.if_else(equal, pa.scalar(None, _ARROW[wanted]), given)

    return evaluate


def _case(node: Any, wanted: Kind) -> Evaluate:
    if node.args.get("this") is not None:
        raise ValueError(f"{_sql(node)!r}: write `case when column = value then ...`")
    default = node.args.get("default")
    last: Evaluate = lambda table, numbers: pa.scalar(None, _ARROW[wanted])  # noqa: E731
    if default is not None:
        last = compiled(default, wanted)
    cases = [(compiled(c.this, "truth"), compiled(c.args["true"], wanted)) for c in node.args["ifs"]]

    def evaluate(table: pa.Table, numbers: Numbers) -> Any:
        def choose(rest: Any, case: tuple[Evaluate, Evaluate]) -> Any:
            met = pc.coalesce(case[0](table, numbers), False)
            return pc.if_else(met, case[1](table, numbers), rest)

        return reduce(choose, reversed(cases), last(table, numbers))

    return evaluate


_COMPILERS: dict[type, Callable[[Any, Kind], Evaluate]] = {
    exp.Literal: _literal,
    exp.Boolean: _boolean,
    exp.Add: _binary(pc.add, "number"),
    exp.Sub: _binary(pc.subtract, "number"),
    exp.Mul: _binary(pc.multiply, "number"),
    exp.Div: _binary(_divide, "number"),
    exp.Neg: _unary(pc.negate, "number"),
    exp.Abs: _unary(pc.abs, "number"),
    exp.Round: _round,
    exp.DPipe: _binary(lambda left, right: pc.binary_join_element_wise(left, right, ""), "text"),
    exp.Lower: _unary(pc.utf8_lower, "text"),
    exp.Upper: _unary(pc.utf8_upper, "text"),
    exp.Trim: _unary(pc.utf8_trim_whitespace, "text"),
    exp.Replace: _replace,
    exp.Coalesce: _coalesce,
    exp.Nullif: _nullif,
    exp.Case: _case,
    exp.EQ: _compared(pc.equal),
    exp.NEQ: _compared(pc.not_equal),
    exp.LT: _compared(pc.less),
    exp.LTE: _compared(pc.less_equal),
    exp.GT: _compared(pc.greater),
    exp.GTE: _compared(pc.greater_equal),
    exp.In: _in,
    exp.Between: _between,
    exp.Like: _like,
    exp.Is: _is,
    exp.And: _binary(pc.and_kleene, "truth"),
    exp.Or: _binary(pc.or_kleene, "truth"),
    exp.Not: _unary(pc.invert, "truth"),
}
