"""The spec's expressions as SQL columns. Each is checked separately, so that an error names its feature."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import duckdb

from core.errors import FeatureError
from features.reads import literal, quoted, unknown
from features.spec import SQL_TYPE, Feature, FeaturesConfig, Over

_WHOLE = re.compile(r"U?(TINYINT|SMALLINT|INTEGER|BIGINT)|U?HUGEINT|BOOLEAN")
_NUMBER = re.compile(_WHOLE.pattern + r"|FLOAT|DOUBLE|DECIMAL\(.*\)")
_TEXT = re.compile(r"VARCHAR|ENUM\(.*\)")
_FITS = {"int64": _WHOLE, "float64": _NUMBER, "string": _TEXT}

Aliases = Mapping[str, str]
"""Column -> the alias under which an expression finds it (features/reads.py)."""


def columns(features: Sequence[Feature], aliases: Aliases) -> list[str]:
    """The select list: each feature in order, under its name, cast to its type, with its default for null."""
    return [f"{_value(feature, aliases)} AS {quoted(feature.name)}" for feature in features]


def check(
    spec: FeaturesConfig,
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    aliases: Aliases,
    further: Iterable[str],
    grouped: bool = True,
) -> None:
    """Bind every expression to `relation`. Raises FeatureError that names the first invalid feature.

    `grouped`: expressions are aggregates over a customer's rows, not over one row. `further`: other columns
    of the records, for the message about a missing column.
    """
    known = sorted({*aliases, *further})
    for feature in spec.features:
        if grouped and feature.sql is None:
            raise FeatureError(
                f"feature {feature.name}: give its sql, an aggregate over the customer's purchases"
            )
        if missing := sorted(feature.reading.columns - aliases.keys()):
            raise FeatureError(f"feature {feature.name}: {unknown(missing[0], known)}")
        try:
            described = connection.execute(
                f"DESCRIBE {_alone(feature, relation, aliases, grouped)}"
            ).fetchall()
        except duckdb.Error as error:
            raise FeatureError(f"feature {feature.name}: {_sentence(error)}; correct its sql") from None
        if not _FITS[feature.dtype].fullmatch(kind := str(described[0][1])):
            raise FeatureError(
                f"feature {feature.name}: its expression gives {kind}, but its dtype is {feature.dtype}; "
                f"{_remedy(feature, kind)}"
            )


def computation_error(
    spec: FeaturesConfig,
    connection: duckdb.DuckDBPyConnection,
    relation: Callable[[Over], str],
    aliases: Aliases,
    error: duckdb.Error,
    grouped: bool = True,
) -> FeatureError:
    """The error of a failed computation. It names the feature if that feature also fails separately."""
    if isinstance(error, duckdb.OutOfMemoryException):
        return FeatureError(
            f"features.memory_limit {spec.memory_limit} is too small: {_sentence(error)}; raise it"
        )
    for feature in spec.features:
        alone = _alone(feature, relation(feature.over), aliases, grouped)
        try:
            connection.execute(f"SELECT count(v) FROM ({alone})").fetchall()
        except duckdb.CatalogException:  # the rows could not be read, so no feature is the cause
            break
        except duckdb.Error as own:
            return FeatureError(f"feature {feature.name}: {_sentence(own)}; correct its sql")
    return FeatureError(f"features could not be computed: {_sentence(error)}")


def _value(feature: Feature, aliases: Aliases) -> str:
    value = f"CAST(({feature.reading.bound(aliases)}\n) AS {SQL_TYPE[feature.dtype]})"
    if feature.dtype == "float64":
        # NaN and infinity would spoil the network's means, and only null means the same in every store
        value = f"CASE WHEN isfinite({value}) THEN {value} END"
    if feature.default is None:
        return value
    default = literal(feature.default) if isinstance(feature.default, str) else repr(feature.default)
    return f"coalesce({value}, CAST({default} AS {SQL_TYPE[feature.dtype]}))"


def _alone(feature: Feature, relation: str, aliases: Aliases, grouped: bool) -> str:
    # with the customer in the list, DuckDB rejects a bare column instead of an aggregate, and the reverse
    customer = quoted(aliases["user_id"])
    group = f"GROUP BY {customer}" if grouped else ""
    value = feature.reading.bound(aliases)
    return f"SELECT v FROM (SELECT ({value}\n) AS v, {customer} FROM ({relation}) {group})"


def _remedy(feature: Feature, kind: str) -> str:
    if feature.sql is None and kind == "VARCHAR":
        return (
            f"set data.source.types: {{{feature.name}: {feature.dtype}}}, with data.source.options.decimal "
            'and thousands if its numbers are written like "1.234,5", or make the feature a string'
        )
    return "change the dtype or cast in sql"


def _sentence(error: duckdb.Error) -> str:
    """DuckDB's message on one line, without its excerpt and advice, and with column names for aliases."""
    text = re.split(r"\n\nLINE|\nPossible solutions", str(error), maxsplit=1)[0]
    return re.sub(r'#\d*(?=")', "", " ".join(text.split()).rstrip(".;!"))
