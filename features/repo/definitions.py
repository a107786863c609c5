"""The Feast definitions: entity, view, on-demand view, service and push source, all made from the spec.

This project calls `define`. Feast's command line imports this file as the module `definitions`; only then
does the end of the file define the names that Feast reads. To use it (from the project's folder):

    export CHURN_FEAST_REGISTRY=$PWD/var/feast/registry.db CHURN_FEAST_ONLINE=$PWD/var/feast/online.db
    feast -c features/repo feature-views list
"""

import os
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import yaml

from features import lean_feast  # first, because it makes the next imports faster
from features.spec import FeaturesConfig

# isort: split
from feast import Entity, FeatureService, FeatureView, Field, FileSource, OnDemandFeatureView, PushSource
from feast.types import Float64, Int64, String
from feast.value_type import ValueType

JOIN_KEY = "user_id"
DTYPES = {"int64": Int64, "float64": Float64, "string": String}


class Definitions(NamedTuple):
    entity: Entity
    source: FileSource
    push: PushSource
    view: FeatureView
    derived: OnDemandFeatureView | None
    service: FeatureService

    def objects(self) -> list[Any]:
        return [item for item in self if item is not None]


def define(spec: FeaturesConfig, snapshots: Path) -> Definitions:
    """The spec as Feast objects. With the service's tag `spec_digest`, a reader can refuse another spec."""
    tags = {"spec_digest": spec.digest()}
    entity = Entity(name=spec.entity, join_keys=[JOIN_KEY], value_type=ValueType.STRING)
    source = FileSource(
        name=f"{spec.view}_snapshots",
        path=str(snapshots),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )
    push = PushSource(name=f"{spec.view}_push", batch_source=source)
    view = FeatureView(
        name=spec.view,
        entities=[entity],
        ttl=spec.ttl,
        schema=[Field(name=f.name, dtype=DTYPES[f.dtype], description=f.description) for f in spec.features],
        source=push,
        tags=tags,
    )
    derived = _derived(spec, view)
    return Definitions(
        entity=entity,
        source=source,
        push=push,
        view=view,
        derived=derived,
        service=FeatureService(
            name=spec.service, features=[view, *([derived] if derived else [])], tags=tags
        ),
    )


def derivation(spec: FeaturesConfig) -> str:
    """Source of the on-demand transformation from lists to lists. A ratio is null if one of its parts is
    null.

    Feast stores a transformation as source and runs it where this project is not installed. Therefore the
    ratios are written into the text, and the function uses no name from outside.
    """
    ratios = "\n".join(
        f"        {r.name!r}: ratio(inputs[{r.numerator!r}], inputs[{r.denominator!r}], {r.floor!r}),"
        for r in spec.derived
    )
    return f"""def derive(inputs):
    def ratio(numerators, denominators, floor):
        return [
            None if top is None or bottom is None else float(top) / max(float(bottom), floor)
            for top, bottom in zip(numerators, denominators)
        ]

    return {{
{ratios}
    }}
"""


def _derived(spec: FeaturesConfig, view: FeatureView) -> OnDemandFeatureView | None:
    if not spec.derived:
        return None
    source = derivation(spec)
    parts = sorted({part for r in spec.derived for part in (r.numerator, r.denominator)})
    with lean_feast.quiet():
        return OnDemandFeatureView(
            name=spec.derived_view,
            sources=[view[parts]],  # only the columns that are read, because Feast copies each one
            # without descriptions, because Feast compares these fields with those that it infers
            schema=[Field(name=r.name, dtype=Float64) for r in spec.derived],
            description="; ".join(f"{r.name}: {r.description}" for r in spec.derived),
            udf=_compiled(source),
            udf_string=source,
            mode="python",
        )


def _compiled(source: str) -> FunctionType:
    # dill stores the function itself when its module cannot be imported
    namespace: dict[str, Any] = {"__name__": "features_on_demand"}
    exec(source, namespace)  # noqa: S102  the text is made above from validated names
    function: FunctionType = namespace["derive"]
    return function


if __name__ == "definitions":
    _root = Path(__file__).resolve().parents[2]
    if "CHURN_FEAST_REGISTRY" not in os.environ:
        raise SystemExit(
            "export CHURN_FEAST_REGISTRY and CHURN_FEAST_ONLINE first: see features/repo/definitions.py"
        )
    _config = Path(os.environ.get("CHURN_FEATURES_CONFIG", _root / "configs" / "features.yaml"))
    _workspace = Path(os.environ["CHURN_FEAST_REGISTRY"]).parents[1]
    entity, source, push, view, derived, service = define(
        FeaturesConfig.model_validate(yaml.safe_load(_config.read_text(encoding="utf-8"))),
        _workspace / "features" / "current" / "customer_snapshots.parquet",
    )
