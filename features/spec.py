"""The feature spec: the one place for names, order, types, ttl and defaults.

The network's inputs, the Feast definitions, the bundle in the .mar and the handler are all made from it.
"""

import hashlib
import json
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from data.config import Config

Dtype = Literal["int64", "float64", "string"]


class Feature(Config):
    """One column of `customer_snapshots`."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    dtype: Dtype
    sql: str | None = None
    """DuckDB expression. Transactions: an aggregate over the customer's rows before `as_of`, with the
    columns `amount`, `quantity`, `timestamp`, `age_days` (days before as_of) and `gap_days` (days since the
    customer's purchase before, null for the first). Labelled: an expression over the row. Absent: the column
    of the same name."""
    default: int | float | str | None = None
    """Stands in for null in `customer_snapshots`, so that offline and online hold the same value; None keeps
    the null, which the network reads as a signal of its own."""
    on_missing: Literal["default", "refuse", "degrade"] = "default"
    """What the server does for a customer who lacks it: the default (or null) stands in; no score; or an
    answer as it is, with status `degraded`."""
    description: str = ""

    @property
    def expression(self) -> str:
        return self.sql if self.sql is not None else f'"{self.name}"'


class Ratio(Config):
    """A feature computed when it is read: numerator / max(denominator, floor), by Feast's on-demand view."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    numerator: str
    denominator: str
    floor: float = Field(1.0, gt=0)
    description: str = ""


class Snapshots(Config):
    """At which moments customers are looked at."""

    every: Literal["month", "week"] = "month"
    """`month`: the first of each month, 00:00 UTC; `week`: each Monday."""
    first: str | None = None
    """ISO date; default: the first one that is a full horizon after the log begins."""


class FeaturesConfig(Config):
    """What `configs/features.yaml` may say."""

    schema_version: Literal[1] = 1
    entity: str = "user"
    view: str = "user_features"
    derived_view: str = "user_derived"
    service: str = "churn_prediction_v1"
    ttl_days: int = Field(35, gt=0)
    horizon_days: int = Field(90, gt=0)
    on_stale: Literal["default", "refuse", "degrade"] = "degrade"
    """What the server does with features older than the ttl: puts them aside and scores the customer as an
    unknown one; no score; or answers with them. The status is `stale` (or `refused`)."""
    on_unknown: Literal["refuse", "score"] = "refuse"
    """Whether a customer whom the store does not know is scored with every feature at its default or null
    (cold start, status `unknown`)."""
    when_down: Literal["last_known", "refuse"] = "last_known"
    """Whether a server whose store is down answers with vectors that it read before, within the ttl (status
    `degraded`), or not at all."""
    snapshots: Snapshots = Snapshots()
    features: tuple[Feature, ...] = Field(min_length=1)
    derived: tuple[Ratio, ...] = ()
    offline_store: dict[str, Any] = Field({"type": "duckdb"})
    online_store: dict[str, Any] = Field({"type": "sqlite", "path": "online.db"})
    registry: dict[str, Any] | str = "registry.db"
    """Feast's own blocks; relative paths are taken below the workspace's `feast` folder."""
    memory_limit: str = "2GB"
    threads: int | None = None
    """DuckDB's; it spills to the workspace past the limit."""

    @field_validator("features")
    @classmethod
    def _default_fits_type(cls, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        kinds: dict[str, type | tuple[type, ...]] = {"int64": int, "float64": (int, float), "string": str}
        for feature in features:
            if feature.default is not None and not isinstance(feature.default, kinds[feature.dtype]):
                raise ValueError(f"{feature.name}: default {feature.default!r} is not {feature.dtype}")
            if feature.dtype == "int64" and feature.default is None:
                raise ValueError(f"{feature.name}: int64 cannot hold a null; give a default or use float64")
        return features

    @model_validator(mode="after")
    def _names_are_consistent(self) -> "FeaturesConfig":
        names = [f.name for f in self.features] + [r.name for r in self.derived]
        if doubled := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"features named twice: {', '.join(doubled)}")
        numeric = {f.name for f in self.features if f.dtype != "string"}
        for ratio in self.derived:
            for part in (ratio.numerator, ratio.denominator):
                if part not in numeric:
                    raise ValueError(f"derived {ratio.name}: {part} is not a numeric feature")
        return self

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
        """What bundle.json carries of the spec: all that changes a feature vector's meaning or use."""
        keep = {"schema_version", "entity", "view", "derived_view", "service", "ttl_days", "horizon_days",
                "on_stale", "on_unknown", "when_down", "features", "derived"}  # fmt: skip
        return self.model_dump(mode="json", include=keep)

    def digest(self) -> str:
        """sha256 of the contract; the handler refuses a feature store that carries another."""
        return hashlib.sha256(json.dumps(self.contract(), sort_keys=True).encode()).hexdigest()
