"""The spec's expressions as SQL columns, checked one by one so that an error names its feature."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import duckdb

from data.errors import FeatureError
from features.reads import literal, quoted, unknown
from features.spec import SQL_TYPE, Feature, FeaturesConfig, Over

_WHOLE = re.compile(r"U?(TINYINT|SMALLINT|INTEGER|BIGINT)|U?HUGEINT|BOOLEAN")
_NUMBER = re.compile(_WHOLE.pattern + r"|FLOAT|DOUBLE|DECIMAL\(.*\)")
_TEXT = re.compile(r"VARCHAR|ENUM\(.*\)")
_FITS = {"int64": _WHOLE, "float64": _NUMBER, "string": _TEXT}

Aliases = Mapping[str, str]
"""Column -> the alias under which an expression finds it (features/reads.py)."""


def columns(features: Sequence[Feature], aliases: Aliases) -> list[str]:
    """The select list: each feature under its name, in order, of its type, default in place of null."""
    return [f"{_value(feature, aliases)} AS {quoted(feature.name)}" for feature in features]


def check(
    spec: FeaturesConfig,
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    aliases: Aliases,
    further: Iterable[str],
    grouped: bool = True,
) -> None:
    """Bind every expression against `relation`; FeatureError names the first feature that does not fit.

    `grouped`: an aggregate over a customer's rows, not an expression over one row. `further`: what else the
    records hold, for the message on a column that is not there.
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
                f"feature {feature.name}: its expression gives {kind}, the spec says {feature.dtype}; "
                f"{_remedy(feature, kind)}"
            )


def blame(
    spec: FeaturesConfig,
    connection: duckdb.DuckDBPyConnection,
    relation: Callable[[Over], str],
    aliases: Aliases,
    error: duckdb.Error,
    grouped: bool = True,
) -> FeatureError:
    """What went wrong while computing, with the feature's name if one feature alone fails as well."""
    if isinstance(error, duckdb.OutOfMemoryException):
        return FeatureError(
            f"features.memory_limit {spec.memory_limit} is too small: {_sentence(error)}; raise it"
        )
    for feature in spec.features:
        alone = _alone(feature, relation(feature.over), aliases, grouped)
        try:
            connection.execute(f"SELECT count(v) FROM ({alone})").fetchall()
        except duckdb.CatalogException:  # the rows themselves could not be read
            break
        except duckdb.Error as own:
            return FeatureError(f"feature {feature.name}: {_sentence(own)}; correct its sql")
    return FeatureError(f"features could not be computed: {_sentence(error)}")


def _value(feature: Feature, aliases: Aliases) -> str:
    value = f"CAST(({feature.reading.bound(aliases)}\n) AS {SQL_TYPE[feature.dtype]})"
    if feature.dtype == "float64":
        # NaN and infinity would poison the network's means, and only null has one meaning in every store
        value = f"CASE WHEN isfinite({value}) THEN {value} END"
    if feature.default is None:
        return value
    default = literal(feature.default) if isinstance(feature.default, str) else repr(feature.default)
    return f"coalesce({value}, CAST({default} AS {SQL_TYPE[feature.dtype]}))"


def _alone(feature: Feature, relation: str, aliases: Aliases, grouped: bool) -> str:
    # the customer in the list refuses a bare column where an aggregate is needed, and the reverse
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
    """DuckDB's message on one line, without the excerpt or the advice that follow it, aliases as names."""
    text = re.split(r"\n\nLINE|\nPossible solutions", str(error), maxsplit=1)[0]
    return re.sub(r'#\d*(?=")', "", " ".join(text.split()).rstrip(".;!"))
