"""Describes the contents of the feature store for users."""

from typing import Any

from core.errors import FeatureError
from core.workspace import Workspace
from features.build import read_feature_manifest
from features.database import open_database, parquet
from features.reads import quoted
from features.spec import FeaturesConfig, Ratio

MEASURES = ("non_null_share", "min", "median", "max")


def describe(spec: FeaturesConfig, files: Workspace) -> list[dict[str, Any]]:
    """One row per feature: feature, type, default, description, non_null_share, min, median, max.

    Derived features are last. Values are measured at the newest snapshot, for a labelled table over all rows.
    The median of a text feature is its most frequent value. Raises FeatureError when the snapshots were built
    for another spec.
    """
    record = read_feature_manifest(files)
    if record["spec_digest"] != spec.digest():
        raise FeatureError("the snapshots were built for another feature spec; run `churn features build`")
    rows = [
        {"feature": f.name, "type": f.dtype, "default": f.default, "description": f.description}
        for f in spec.features
    ] + [
        {"feature": r.name, "type": "float64", "default": None, "description": r.description}
        for r in spec.derived
    ]
    columns = ", ".join([*(quoted(f.name) for f in spec.features), *(ratio_sql(r) for r in spec.derived)])
    newest = f"event_timestamp = TIMESTAMPTZ '{record['latest']}'"
    where = newest if record["shape"] == "transactions" else "true"
    measures = ", ".join(_measures(str(row["feature"]), str(row["type"])) for row in rows)
    with open_database(spec, files.features / "spill") as connection:
        numbers = connection.execute(
            f"SELECT {measures} FROM (SELECT {columns} FROM {parquet(files.snapshots)} WHERE {where})"
        ).fetchall()[0]
    for place, row in enumerate(rows):
        row |= zip(MEASURES, numbers[4 * place : 4 * place + 4], strict=True)
    return rows


def ratio_sql(ratio: Ratio) -> str:
    """SQL: a derived feature as a column, from the stored features."""
    top, bottom = (f"{quoted(part)}::DOUBLE" for part in (ratio.numerator, ratio.denominator))
    # greatest() alone would ignore a null denominator
    value = f"CASE WHEN {bottom} IS NOT NULL THEN {top} / greatest({bottom}, {ratio.floor!r}) END"
    return f"{value} AS {quoted(ratio.name)}"


def _measures(feature: str, dtype: str) -> str:
    column = quoted(feature)
    middle = "mode" if dtype == "string" else "median"
    return f"count({column}) / count(*), min({column}), {middle}({column}), max({column})"
