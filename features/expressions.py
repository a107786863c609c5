"""The spec's expressions as SQL columns. Each is checked separately, so that an error names its feature."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Expressions:
    """The expressions of a spec, to be checked on the rows of a relation, which is a SELECT in SQL."""

    spec: FeaturesConfig
    aliases: Aliases
    grouped: bool = True
    """True if expressions are aggregates over a customer's rows; false if they are computed from one row."""

    def check(
        self, connection: duckdb.DuckDBPyConnection, relation: str, further: Iterable[str] = ()
    ) -> None:
        """Bind every expression to `relation`. Raises FeatureError that names the first invalid feature.

        `further`: other columns of the records, for the message about a missing column.
        """
        known = sorted({*self.aliases, *further})
        for feature in self.spec.features:
            if self.grouped and feature.sql is None:
                raise FeatureError(
                    f"feature {feature.name}: give its sql, an aggregate over the customer's purchases"
                )
            if missing := sorted(feature.reading.columns - self.aliases.keys()):
                raise FeatureError(f"feature {feature.name}: {unknown(missing[0], known)}")
            try:
                described = connection.execute(f"DESCRIBE {self._alone(feature, relation)}").fetchall()
            except duckdb.Error as error:
                raise FeatureError(f"feature {feature.name}: {_sentence(error)}; correct its sql") from None
            if not _FITS[feature.dtype].fullmatch(kind := str(described[0][1])):
                raise FeatureError(
                    f"feature {feature.name}: its expression gives {kind}, but its dtype is {feature.dtype}; "
                    f"{_remedy(feature, kind)}"
                )

    def computation_error(
        self, connection: duckdb.DuckDBPyConnection, relation: Callable[[Over], str], error: duckdb.Error
    ) -> FeatureError:
        """The error of a failed computation. It names the feature if that feature also fails separately."""
        if isinstance(error, duckdb.OutOfMemoryException):
            return FeatureError(
                f"features.memory_limit {self.spec.memory_limit} is too small: {_sentence(error)}; raise it"
            )
        for feature in self.spec.features:
            alone = self._alone(feature, relation(feature.over))
            try:
                connection.execute(f"SELECT count(v) FROM ({alone})").fetchall()
            except duckdb.CatalogException:  # the rows could not be read, so no feature is the cause
                break
            except duckdb.Error as own:
                return FeatureError(f"feature {feature.name}: {_sentence(own)}; correct its sql")
        return FeatureError(f"features could not be computed: {_sentence(error)}")

    def _alone(self, feature: Feature, relation: str) -> str:
        # with the customer in the list, DuckDB rejects a bare column instead of an aggregate, and the reverse
        customer = quoted(self.aliases["user_id"])
        group = f"GROUP BY {customer}" if self.grouped else ""
        value = feature.reading.bound(self.aliases)
        return f"SELECT v FROM (SELECT ({value}\n) AS v, {customer} FROM ({relation}) {group})"


def _value(feature: Feature, aliases: Aliases) -> str:
    value = f"CAST(({feature.reading.bound(aliases)}\n) AS {SQL_TYPE[feature.dtype]})"
    if feature.dtype == "float64":
        # NaN and infinity would spoil the network's means, and only null means the same in every store
        value = f"CASE WHEN isfinite({value}) THEN {value} END"
    if feature.default is None:
        return value
    default = literal(feature.default) if isinstance(feature.default, str) else repr(feature.default)
    return f"coalesce({value}, CAST({default} AS {SQL_TYPE[feature.dtype]}))"


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
