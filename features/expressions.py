"""The spec's expressions as SQL columns, checked one by one so that an error names its feature."""

import re
from collections.abc import Sequence
from difflib import get_close_matches

import duckdb

from data.errors import FeatureError
from features.database import name, text
from features.spec import Feature, FeaturesConfig

_WHOLE = re.compile(r"U?(TINYINT|SMALLINT|INTEGER|BIGINT)|U?HUGEINT|BOOLEAN")
_NUMBER = re.compile(_WHOLE.pattern + r"|FLOAT|DOUBLE|DECIMAL\(.*\)")
_TEXT = re.compile(r"VARCHAR|ENUM\(.*\)")
_FITS = {"int64": _WHOLE, "float64": _NUMBER, "string": _TEXT}
_SQL_TYPE = {"int64": "BIGINT", "float64": "DOUBLE", "string": "VARCHAR"}


def columns(features: Sequence[Feature]) -> str:
    """The select list: each feature under its name, in order, of its type, default in place of null."""
    return ",\n  ".join(f"{_value(feature)} AS {name(feature.name)}" for feature in features)


def check(spec: FeaturesConfig, connection: duckdb.DuckDBPyConnection, relation: str, grouped: bool) -> None:
    """Bind every expression against `relation`; FeatureError names the first feature that does not fit."""
    known = [str(row[0]) for row in connection.execute(f"DESCRIBE {relation}").fetchall()]
    for feature in spec.features:
        if feature.sql is None and feature.name not in known:
            raise FeatureError(_unknown(feature, known, grouped))
        try:
            described = connection.execute(f"DESCRIBE {_alone(feature, relation, grouped)}").fetchall()
        except duckdb.Error as error:
            raise FeatureError(f"feature {feature.name}: {_sentence(error)}; correct its sql") from None
        if not _FITS[feature.dtype].fullmatch(kind := str(described[0][1])):
            raise FeatureError(
                f"feature {feature.name}: its expression gives {kind}, the spec says {feature.dtype}; "
                "change the dtype or cast in sql"
            )


def blame(
    spec: FeaturesConfig,
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    grouped: bool,
    error: duckdb.Error,
) -> FeatureError:
    """What went wrong while computing, with the feature's name if one feature alone fails as well."""
    if isinstance(error, duckdb.OutOfMemoryException):
        return FeatureError(
            f"features.memory_limit {spec.memory_limit} is too small: {_sentence(error)}; raise it"
        )
    for feature in spec.features:
        try:
            connection.execute(f"SELECT count(v) FROM ({_alone(feature, relation, grouped)})").fetchall()
        except duckdb.Error as own:
            return FeatureError(f"feature {feature.name}: {_sentence(own)}; correct its sql")
    return FeatureError(f"features could not be computed: {_sentence(error)}")


def mentioned(features: Sequence[Feature], column: str) -> bool:
    """Whether an expression may read `column`; a false yes only costs time."""
    word = re.compile(rf"(?<!\w){re.escape(column)}(?!\w)", re.IGNORECASE)
    return any(word.search(feature.expression) for feature in features)


def _value(feature: Feature) -> str:
    value = f"CAST(({feature.expression}) AS {_SQL_TYPE[feature.dtype]})"
    if feature.dtype == "float64":
        # NaN and infinity would poison the network's means, and only null has one meaning in every store
        value = f"CASE WHEN isfinite({value}) THEN {value} END"
    if feature.default is None:
        return value
    literal = text(feature.default) if isinstance(feature.default, str) else repr(feature.default)
    return f"coalesce({value}, CAST({literal} AS {_SQL_TYPE[feature.dtype]}))"


def _alone(feature: Feature, relation: str, grouped: bool) -> str:
    # user_id in the list refuses a bare column where an aggregate is needed, and the reverse
    group = "GROUP BY user_id" if grouped else ""
    return f"SELECT v FROM (SELECT ({feature.expression}) AS v, user_id FROM ({relation}) {group})"


def _unknown(feature: Feature, known: Sequence[str], grouped: bool) -> str:
    if grouped:
        return f"feature {feature.name}: give its sql, an aggregate over the customer's purchases"
    close = get_close_matches(feature.name, known, n=3) or sorted(known)
    return f"feature {feature.name}: the table has no such column; did you mean {', '.join(close)}?"


def _sentence(error: duckdb.Error) -> str:
    """DuckDB's message on one line, without the excerpt or the advice that follow it."""
    text = re.split(r"\n\nLINE|\nPossible solutions", str(error), maxsplit=1)[0]
    return " ".join(text.split()).rstrip(".;!")
