"""Renders the build's DuckDB queries for Spark, and refuses expressions that have not been shown to be equal.

sqlglot parses and writes both dialects. The few constructs whose meaning differs are replaced here. An
expression of the spec may only use what tests/features/test_spark_equals_duckdb.py compares in both engines,
because a function of the same name can differ silently: `round`, integer division or `mode`, for example.
"""

from collections.abc import Callable, Mapping

from sqlglot import exp, parse_one
from sqlglot.optimizer.annotate_types import annotate_types

_PROVEN: frozenset[type[exp.Expr]] = frozenset(
    {
        *(exp.Identifier, exp.Literal, exp.Null, exp.Boolean, exp.Paren, exp.Star, exp.Var, exp.DataType),
        *(exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Neg, exp.Abs, exp.Sqrt, exp.Exp, exp.Ln),
        *(exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Between, exp.In, exp.Is),
        *(exp.NullSafeEQ, exp.NullSafeNEQ, exp.And, exp.Or, exp.Not),
        *(exp.Case, exp.If, exp.Coalesce, exp.Nullif, exp.Greatest, exp.Least),
        *(exp.Cast, exp.DPipe, exp.Length),
        *(exp.Count, exp.Distinct, exp.Filter, exp.Where, exp.Sum, exp.Avg, exp.Min, exp.Max, exp.CountIf),
        *(exp.Stddev, exp.StddevSamp, exp.StddevPop, exp.Variance, exp.VariancePop, exp.Median),
        *(exp.LogicalOr, exp.LogicalAnd, exp.First, exp.Last, exp.Order, exp.Ordered),
        *(exp.TimestampTrunc, exp.Extract, exp.Year, exp.Month, exp.Day, exp.Hour),
    }
)
_UNITS = frozenset({"HOUR", "DAY", "WEEK", "MONTH", "QUARTER", "YEAR"})
_PARTS = _UNITS - {"WEEK"}
_WHOLE = exp.DataType.INTEGER_TYPES | {exp.DataType.Type.BOOLEAN}
_NUMBERS = exp.DataType.NUMERIC_TYPES | {exp.DataType.Type.BOOLEAN}
_TIMES = (exp.DataType.Type.TIMESTAMP, exp.DataType.Type.TIMESTAMPNTZ)
_TEXT = exp.DataType.TEXT_TYPES


def rendered(sql: str) -> str:
    """The query `sql` of DuckDB in Spark's dialect, without the order of its rows.

    Times without zone stay without one, so the session's time zone has to be UTC.
    """
    root = exp.Subquery(this=parse_one(sql, read="duckdb"))
    for select in root.find_all(exp.Select):
        select.set("order", None)
    for node in reversed(list(root.dfs())):  # from the leaves, because a replacement contains its operands
        replace = _REPLACEMENTS.get(type(node))
        if replace is not None and (other := replace(node)) is not node:
            node.replace(other)
    return str(root.this.sql(dialect="spark"))


def unproven(sql: str, types: Mapping[str, str]) -> str | None:
    """What in the expression `sql` is not allowed with Spark; None if it may be used.

    `types`: column -> DuckDB's type of it.
    """
    tree = exp.Paren(this=parse_one(sql, read="duckdb"))
    columns = set()
    for column in list(tree.find_all(exp.Column)):
        typed = exp.cast(exp.null(), types[column.parts[0].name])
        column.replace(typed)
        columns.add(id(typed))
    annotate_types(tree, dialect="duckdb")
    for node in tree.walk(prune=lambda node: id(node) in columns):
        if id(node) not in columns and not _is_proven(node):
            return _named(node)
    return None


def _named(node: exp.Expr) -> str:
    if isinstance(node, exp.Cast):
        return f"a cast from {node.this.type or 'UNKNOWN'} to {node.args['to'].sql(dialect='duckdb')}"
    return str(node.name if isinstance(node, exp.Anonymous) else node.key).lower()


def _is_proven(node: exp.Expr) -> bool:
    if type(node) not in _PROVEN:
        return False
    check = _CHECKS.get(type(node))
    return check is None or check(node)


def _is_proven_cast(node: exp.Expr) -> bool:
    """A cast between numbers that loses nothing, or of a literal to a time."""
    target, source = node.args["to"], node.this
    if target.is_type(exp.DataType.Type.DOUBLE):
        return bool(source.is_type(*_NUMBERS))
    if target.is_type(*exp.DataType.INTEGER_TYPES):
        return bool(source.is_type(*_WHOLE))
    if target.is_type(exp.DataType.Type.DATE, *_TIMES):
        return isinstance(source, exp.Literal) and bool(source.is_string)
    return False


def _is_proven_order(node: exp.Expr) -> bool:
    """`first` and `last` need an order, by one column."""
    order = node.this
    if not (isinstance(order, exp.Order) and len(order.expressions) == 1):
        return False
    key = order.expressions[0].this
    return isinstance(key, exp.Cast) and bool(key.is_type(*_TIMES))


_CHECKS: Mapping[type[exp.Expr], Callable[[exp.Expr], bool]] = {
    exp.Cast: _is_proven_cast,
    exp.First: _is_proven_order,
    exp.Last: _is_proven_order,
    exp.Order: lambda node: isinstance(node.parent, exp.First | exp.Last),
    exp.Distinct: lambda node: isinstance(node.parent, exp.Count) and len(node.expressions) == 1,
    exp.DPipe: lambda node: all(side.is_type(*_TEXT) for side in (node.this, node.expression)),
    exp.Length: lambda node: bool(node.this.is_type(*_TEXT)),
    exp.TimestampTrunc: lambda node: node.text("unit").upper() in _UNITS,
    exp.Extract: lambda node: node.name.upper() in _PARTS,
}


def _function(name: str, *arguments: exp.Expr) -> exp.Expr:
    return exp.Anonymous(this=name, expressions=list(arguments))


def _decimal(node: exp.Expr) -> exp.Expr:
    """Spark divides decimals to few places, DuckDB as doubles."""
    if node.is_string or node.name.isdigit():
        return node
    return exp.cast(exp.Literal.string(node.name), "DOUBLE")


def _quotient(node: exp.Expr) -> exp.Expr:
    """Spark fails at a division by zero; DuckDB computes it as IEEE 754 does."""
    top, bottom = node.this, node.expression
    literal = bottom.this if isinstance(bottom, exp.Cast) else bottom
    if isinstance(literal, exp.Literal) and float(literal.name) != 0:
        return node
    at_zero = exp.Mul(
        this=_in_parentheses(top),
        expression=_function("power", exp.cast(bottom.copy(), "DOUBLE"), _number(-1)),
    )
    return exp.Paren(
        this=exp.Case(
            ifs=[exp.If(this=exp.EQ(this=_in_parentheses(bottom), expression=_number(0)), true=at_zero)],
            default=node.copy(),
        )
    )


def _filtered(node: exp.Expr) -> exp.Expr:
    """A filter belongs to the aggregate within `size(...)`."""
    if isinstance(node.this, exp.Anonymous) and node.this.name == "size":
        [aggregate] = node.this.expressions
        return _function("size", exp.Filter(this=aggregate.copy(), expression=node.expression.copy()))
    return node


def _distinct(node: exp.Expr) -> exp.Expr:
    """As a set, so that Spark adds the sums beside it in the order of the rows, as DuckDB does."""
    if isinstance(node.this, exp.Distinct):
        return _function("size", _function("collect_set", node.this.expressions[0].copy()))
    return node


def _at_an_end(node: exp.Expr) -> exp.Expr:
    """`first` and `last` by time. Of rows at the same time, DuckDB takes the first in their order."""
    ordered = node.this.expressions[0]
    is_latest = isinstance(node, exp.Last) != bool(ordered.args.get("desc"))
    place = exp.column(ROW_IN_ORDER, quoted=True)
    key = _function("struct", ordered.this.copy(), exp.Neg(this=place) if is_latest else place)
    return _function("max_by" if is_latest else "min_by", node.this.this.copy(), key)


def _other(node: exp.Expr) -> exp.Expr:
    """DuckDB's functions that the build itself uses."""
    name = node.name.lower()
    if name == "isfinite":
        infinity = exp.cast(exp.Literal.string("infinity"), "DOUBLE")
        return exp.LT(this=exp.Abs(this=node.expressions[0].copy()), expression=infinity)
    if name == "make_timestamp":
        return exp.cast(_function("timestamp_micros", node.expressions[0].copy()), "TIMESTAMPNTZ")
    if name == "epoch_us":
        return _function("unix_micros", exp.cast(node.expressions[0].copy(), "TIMESTAMPTZ"))
    return node


def _in_parentheses(node: exp.Expr) -> exp.Expr:
    return exp.Paren(this=node.copy())


def _number(value: int) -> exp.Expr:
    return exp.Literal.number(value)


ROW_IN_ORDER = "nth#"
"""Column of the rows: the place of a row among those of its customer."""

_REPLACEMENTS: Mapping[type[exp.Expr], Callable[[exp.Expr], exp.Expr]] = {
    exp.Literal: _decimal,
    exp.Div: _quotient,
    exp.Filter: _filtered,
    exp.Count: _distinct,
    exp.First: _at_an_end,
    exp.Last: _at_an_end,
    exp.Anonymous: _other,
}
