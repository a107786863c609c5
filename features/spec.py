"""The feature spec: the only place that defines names, order, types, ttl and defaults.

The network's inputs, the Feast definitions, the bundle in the .mar and the handler are all derived from it.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from core.config import Config
from core.errors import FeatureError
from features.reads import Reading, quoted, reading, unknown
from features.spark.config import SparkConfig
from handlers.bundle import digest_of_spec

Dtype = Literal["int64", "float64", "string"]
Over = Literal["purchases", "returns", "all"]
Shape = Literal["transactions", "labelled"]

SQL_TYPE = {"int64": "BIGINT", "float64": "DOUBLE", "string": "VARCHAR"}
COMPUTED = frozenset({"age_days", "gap_days"})
"""Columns of a log's rows that are not in the source, but computed for each snapshot."""
LOG_COLUMNS = COMPUTED | {"user_id", "timestamp", "amount", "quantity", "is_return"}
"""Standard columns of a log, which expressions may read in addition to the source's."""
TABLE_COLUMNS = frozenset({"user_id", "event_timestamp", "target"})
"""Standard columns of a labelled table. The target is not a feature."""
AUTO, WITHIN_A_YEAR = "auto", "recency_days <= 365"
"""The default eligibility rule, chosen by measurement (ADR 12)."""
RESERVED_NAMES = frozenset(
    {
        *("user_id", "event_timestamp", "created_timestamp"),  # keys of the snapshots
        *("churned", "target", "entity_row", "entity_row_id"),  # of training sets, ours and Feast's
    }
)
"""Names that a feature cannot have, in upper or lower case."""


class Feature(Config):
    """One column of `customer_snapshots`."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the feature in the store, in requests and in answers."""
    dtype: Dtype
    """Type of its values. An int64 feature needs a default."""
    sql: str | None = None
    """DuckDB expression. Transactions: an aggregate over the customer's rows before `as_of`, with the
    columns `amount`, `quantity`, `timestamp`, `age_days` (days before as_of) and `gap_days` (days since the
    row of the same customer before it, null for the first). Labelled: an expression over the row. Absent: the
    column of the same name. Names of columns are case-sensitive. A name with blanks or special characters is
    written in double quotes."""
    over: Over = "purchases"
    """Transactions: which of the customer's rows the aggregate reads. `purchases`: no returns, so that
    `count(*)`, `min(age_days)` and `gap_days` refer to purchases. `returns`: only returns; `gap_days` is
    counted from return to return, and a customer without returns gets the aggregate of no rows (a count of 0,
    a sum of null). `all`: both; `gap_days` is counted from row to row, and amounts have the signs of the
    records."""
    default: int | float | str | None = None
    """Replaces null in `customer_snapshots`, so that the offline and the online store have the same value.
    None preserves the null, which the network reads as a separate signal."""
    on_missing: Literal["default", "refuse", "degrade"] = "default"
    """The server's response for a customer without a value. `default`: the default (or null) is used.
    `degrade`: the same, with status `degraded`. `refuse`: no score."""
    description: str = ""
    """What the feature means, in words for people: reasons of a score contain it."""

    @property
    def reading(self) -> Reading:
        """The expression and the columns that it reads."""
        return reading(self.sql if self.sql is not None else quoted(self.name))

    @model_validator(mode="after")
    def _check_expression(self) -> "Feature":
        try:
            assert self.reading
        except ValueError as error:
            raise ValueError(f"feature {self.name}: sql: {error}") from None
        return self


class Ratio(Config):
    """A feature that Feast's on-demand view computes at each read: numerator / max(denominator, floor)."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the feature."""
    numerator: str
    """A numeric feature of the list."""
    denominator: str
    """A numeric feature of the list."""
    floor: float = Field(1.0, gt=0)
    """Lower bound of the denominator."""
    description: str = ""
    """What the feature means, in words for people."""


class Snapshots(Config):
    """The times at which snapshots are taken."""

    every: Literal["month", "week"] = "month"
    """`month`: the first of each month, 00:00 UTC; `week`: each Monday."""
    first: str | None = None
    """ISO date of the first snapshot. Default: the first time that is a full horizon after the log begins."""


class FeaturesConfig(Config):
    """The schema of `configs/features.yaml`."""

    schema_version: Literal[1] = 1
    """Version of this schema."""
    entity: str = "user"
    """Name of Feast's entity, which a customer is."""
    view: str = "user_features"
    """Name of Feast's feature view. Default for a service whose name ends in `_v2` or a higher number:
    `user_features_v2`, so that both views are in the store at once."""
    derived_view: str = "user_derived"
    """Name of Feast's on-demand view, which has the derived features. Default as for `view`."""
    service: str = Field("churn_prediction_v1", pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    """Name of Feast's feature service, which is the contract of a model's inputs. A spec that changes while a
    model of the old one is in use needs a new name, such as churn_prediction_v2 (docs/how-to/features.md)."""
    ttl_days: int = Field(35, gt=0)
    """Age after which features are stale."""
    horizon_days: int = Field(90, gt=0)
    """Days after a snapshot without a purchase that mean churned (transaction logs)."""
    on_stale: Literal["default", "refuse", "degrade"] = "degrade"
    """The server's response for features older than the ttl. `default`: it ignores them and scores the
    customer as unknown. `refuse`: no score. `degrade`: a score from them. The status is `stale` (or
    `refused`)."""
    on_unknown: Literal["refuse", "score"] = "refuse"
    """Whether a customer who is not in the store is scored, with every feature at its default or null (cold
    start, status `unknown`)."""
    when_down: Literal["last_known", "refuse"] = "last_known"
    """While the store is down: `last_known` scores with vectors that the server read earlier, within the ttl
    (status `degraded`); `refuse` gives no score."""
    eligible: str | None = None
    """Which customers are trained on, scored and stored online: a condition over the features of a snapshot.
    null: all customers in the records. auto: `recency_days <= 365` for a log that has this feature (computed
    from `age_days`), else all customers."""
    returns_count_as_life: bool = False
    """Whether a return within the horizon also shows that a customer has not churned. By default only a
    purchase does."""
    project: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$")
    """Feast's project name for all values of a workspace (features/project.py). Default: `churn_prediction`
    when the online store is a file of the workspace, a name unique to the workspace when it may be shared."""
    snapshots: Snapshots = Snapshots()
    features: tuple[Feature, ...] = Field(min_length=1)
    """The features, in the order of the network's inputs."""
    derived: tuple[Ratio, ...] = ()
    offline_store: dict[str, Any] = Field({"type": "duckdb"})
    """Block of Feast's configuration."""
    online_store: dict[str, Any] = Field({"type": "sqlite", "path": "online.db"})
    """Block of Feast's configuration: `{type: sqlite, path: online.db}`, or `{type: redis, connection_string:
    ...}`."""
    registry: dict[str, Any] | str = "registry.db"
    """Block of Feast's configuration. Relative paths are relative to the workspace's `feast` folder."""
    engine: Literal["duckdb", "spark"] = "duckdb"
    """What computes the features of a log. `duckdb`: this machine, in bounded memory, with equal bytes for
    equal records. `spark`: a cluster, from the same definitions (extra `spark`, Java 17); for logs that are
    too large for one machine. A labelled table is always computed by DuckDB."""
    spark: SparkConfig = SparkConfig()
    """Settings of the engine Spark."""
    memory_limit: str = "2GB"
    """Memory of DuckDB, which spills to the workspace above it."""
    threads: int | None = None
    """Threads of DuckDB. Default: all cores."""

    @model_validator(mode="before")
    @classmethod
    def _name_views(cls, content: Any) -> Any:
        """The default names of the views. Names that are given, as in an archive, are used as they are."""
        if not isinstance(content, Mapping):
            return content
        number = re.search(r"_v([2-9]|[1-9]\d+)$", str(content.get("service", "")))
        if number is None:
            return content
        names = {key: cls.model_fields[key].default + number[0] for key in ("view", "derived_view")}
        return names | dict(content)

    @field_validator("features")
    @classmethod
    def _check_defaults(cls, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        kinds: dict[str, type | tuple[type, ...]] = {"int64": int, "float64": (int, float), "string": str}
        for feature in features:
            if feature.default is not None and not isinstance(feature.default, kinds[feature.dtype]):
                raise ValueError(f"{feature.name}: default {feature.default!r} is not {feature.dtype}")
            if feature.dtype == "int64" and feature.default is None:
                raise ValueError(f"{feature.name}: int64 cannot hold a null; give a default or use float64")
        return features

    @model_validator(mode="after")
    def _check_names(self) -> "FeaturesConfig":
        names = [f.name for f in self.features] + [r.name for r in self.derived]
        if taken := [n for n in names if n.lower() in RESERVED_NAMES]:
            raise ValueError(f"feature {taken[0]}: this name is reserved for a standard column; rename it")
        first: dict[str, str] = {}
        for name in names:
            other = first.setdefault(name.lower(), name)
            if names.count(name) > 1:
                raise ValueError(f"features named twice: {name}")
            if other != name:
                raise ValueError(f"features {other} and {name} differ only in case; rename one of them")
        numeric = {f.name for f in self.features if f.dtype != "string"}
        for ratio in self.derived:
            for part in (ratio.numerator, ratio.denominator):
                if part not in numeric:
                    raise ValueError(f"derived {ratio.name}: {part} is not a numeric feature")
        return self

    @model_validator(mode="after")
    def _check_eligible(self) -> "FeaturesConfig":
        if self.eligible in (None, AUTO):
            return self
        try:
            read = reading(str(self.eligible)).columns
        except ValueError as error:
            raise ValueError(f"features.eligible: {error}") from None
        names = [feature.name for feature in self.features]
        if missing := sorted(read - set(names)):
            raise ValueError(f"features.eligible: of the features {unknown(missing[0], names)}")
        return self

    @property
    def eligibility(self) -> str | None:
        """The condition that is applied; None when all customers are eligible."""
        if self.eligible != AUTO:
            return self.eligible
        recency = [f.reading.columns for f in self.features if f.name == "recency_days"]
        return WITHIN_A_YEAR if recency and "age_days" in recency[0] else None

    @property
    def horizon(self) -> timedelta:
        return timedelta(days=self.horizon_days)

    @property
    def ttl(self) -> timedelta:
        return timedelta(days=self.ttl_days)

    @property
    def numeric(self) -> tuple[str, ...]:
        """The network's numeric inputs, in order: features as declared, then derived."""
        return (*(f.name for f in self.features if f.dtype != "string"), *(r.name for r in self.derived))

    @property
    def categorical(self) -> tuple[str, ...]:
        """The network's categorical inputs, in order."""
        return tuple(f.name for f in self.features if f.dtype == "string")

    def contract(self) -> dict[str, Any]:
        """The part of the spec in bundle.json: all that changes the meaning or use of a feature vector."""
        keep = {"schema_version", "entity", "view", "derived_view", "service", "ttl_days", "horizon_days",
                "on_stale", "on_unknown", "when_down", "returns_count_as_life", "features",
                "derived"}  # fmt: skip
        return self.model_dump(mode="json", include=keep) | {"eligible": self.eligibility}

    def digest(self) -> str:
        """sha256 of the contract without descriptions. A server refuses a store with another digest."""
        return digest_of_spec(self.contract())


def spec_of(contract: Mapping[str, Any], present: FeaturesConfig) -> FeaturesConfig:
    """The spec of an archive (`spec` in bundle.json), on the stores and with the engine and the schedule of
    `present`. Raises FeatureError for a contract that this release does not accept or reads otherwise."""
    wanted = digest_of_spec(contract)
    if wanted == present.digest():
        return present
    here = present.model_dump(mode="json", exclude=set(contract) | set(present.contract()))
    service = contract.get("service")
    try:
        spec = FeaturesConfig.model_validate(here | dict(contract))
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        field = ".".join(map(str, found["loc"]))
        raise FeatureError(
            f"features.service {service}: this release does not accept the spec in its archive: {field}:"
            f" {found['msg']}; use the release that packaged it"
        ) from None
    if spec.digest() != wanted:
        raise FeatureError(
            f"features.service {service}: this release reads the spec in its archive otherwise; use the"
            " release that packaged it"
        )
    return spec


def columns_read(spec: FeaturesConfig, shape: Shape = "transactions") -> frozenset[str]:
    """The source's columns that expressions read, case-sensitive, without the standard columns."""
    read = frozenset(name for feature in spec.features for name in feature.reading.columns)
    return read - (LOG_COLUMNS if shape == "transactions" else TABLE_COLUMNS)
