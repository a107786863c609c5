"""Finds in a workspace what the performance of the model is measured from."""

from datetime import datetime

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from features.records import read_records
from monitoring.performance.inputs import PerformanceInputs
from pipelines.context import Stages
from pipelines.references import trained_until
from pipelines.services import decision_for, service_of_version


def performance_inputs(settings: Stages, at: datetime, version: str) -> PerformanceInputs | None:
    """The inputs of a check at `at` of the model `version`, which serves then.

    None where there is nothing to measure: no version serves, no prediction was logged, or the records are a
    labelled table, whose outcomes do not become known by activity. Raises FeatureError without records.
    """
    files = settings.files
    manifest, parts = read_records(files)
    segments = [
        str(file)
        for day in sorted(files.predictions.glob("date=*"))
        if day.name <= f"date={at:%Y-%m-%d}"
        for file in sorted(day.glob("*.parquet"))
    ]
    if not version or not segments or manifest["shape"] != "transactions":
        return None
    spec = service_of_version(settings, version).spec
    records = ds.dataset([str(part) for part in parts])
    if "is_return" in records.schema.names and not spec.returns_count_as_life:
        records = records.filter(ds.field("is_return").is_null() | ~ds.field("is_return"))
    trained = trained_until(files, version, spec.horizon)
    return PerformanceInputs(
        at=at,
        # models with other features have written segments with other columns
        predictions=ds.dataset(
            segments,
            schema=pa.unify_schemas([pq.read_schema(one) for one in segments], promote_options="permissive"),
        ),
        activity=records,
        known_until=min(at, datetime.fromisoformat(manifest["window"]["end"])),
        version=version,
        spec=spec,
        decision=decision_for(settings, spec),
        trained_until={} if trained is None else {version: trained},
    )
