"""Finds one prediction in the prediction log."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from core.errors import DataError
from core.workspace import Workspace
from pipelines.context import Stages
from pipelines.prediction_log import collected_log
from pipelines.trace.link import Link

FEATURE = "feature_"
MASKED = re.compile(r"u_[0-9a-f]{32}")
SHOWN = ("request_id", "trace_id", "time", "variant", "user_id", "status", "score", "threshold", "decision",
         "latency_ms")  # fmt: skip


def logs_of(settings: Stages) -> list[Path]:
    """The folders of a workspace that hold predictions: of `churn serve`, and of the canary of `churn run`.

    Records in a Kafka topic are copied first. Raises MonitoringError if it cannot be read.
    """
    files = settings.files
    found = [
        collected_log(settings),
        *(Workspace(files.root / own).predictions for own in ("rehearsal", "run")),
    ]
    return [folder for folder in found if folder.is_dir()]


def find_prediction(folders: Sequence[Path], request_id: str, customer: str | None) -> dict[str, Any]:
    """The record of the prediction; of several variants that scored it, stable's.

    `customer`: masked; None where the request was about one customer. Raises DataError if it is in no log, or
    if the request was about several customers and `customer` is None.
    """
    places = [place for folder in folders for place in _places(folder, request_id)]
    if not places:
        where = ", ".join(map(str, folders)) or "this workspace, which has no prediction log"
        raise DataError(
            f"prediction {request_id}: not in {where}; take the request_id of an answer, or name another"
            " folder with --log"
        )
    mine = [place for place in places if customer in (None, place["user_id"])]
    if not mine:
        raise DataError(f"prediction {request_id}: it is not about this customer; leave --customer out")
    customers = {place["user_id"] for place in mine}
    if len(customers) > 1:
        raise DataError(
            f"prediction {request_id}: the request is about {len(customers)} customers; name one with"
            " --customer ID"
        )
    chosen = min(mine, key=lambda place: (place["variant"] != "stable", place["variant"]))
    return _record(chosen)


def link_of(record: Mapping[str, Any]) -> Link:
    """The prediction itself. It contains no value of a feature."""
    facts = {name: record.get(name) for name in SHOWN if record.get(name) is not None}
    if record["overridden"]:
        facts["what-if question about"] = ", ".join(record["overridden"])
    return Link("prediction", facts)


def features_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Input of the network -> the value that was scored, None for a missing one."""
    return {name.removeprefix(FEATURE): value for name, value in record.items() if name.startswith(FEATURE)}


def _places(folder: Path, request_id: str) -> list[dict[str, Any]]:
    """File, customer and variant of each record of the request."""
    segments = [str(path) for path in sorted(folder.rglob("*.parquet"))]
    if not segments:
        return []
    try:
        # only columns that the logs of all models have
        schema = pa.schema([(name, pa.string()) for name in ("request_id", "user_id", "variant")])
        found = ds.dataset(segments, schema=schema, format="parquet").to_table(
            columns=["request_id", "user_id", "variant", "__filename"],
            filter=ds.field("request_id") == request_id,
        )
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{folder}: the prediction log cannot be read: {error}; remove the file") from None
    return list(found.to_pylist())


def _record(place: Mapping[str, Any]) -> dict[str, Any]:
    keys = [(name, "==", place[name]) for name in ("request_id", "user_id", "variant")]
    rows = pq.read_table(place["__filename"], filters=keys, partitioning=None).to_pylist()
    return dict(rows[0])
