"""Customers are served in this process by the program of an archive, and every answer is logged.

The archive is verified as a server does it, the program gives the bits of a server (serving/offline/bulk.py),
and the records have the schema of the prediction log, so that monitors read them as those of production.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from core.workspace import Workspace
from features.build import read_feature_manifest
from features.newest import newest
from features.spec import FeaturesConfig
from handlers.bundle import Bundle, read_bundle
from handlers.records.record import Origin, Records, schema_of, to_arrow
from pipelines.context import Stages
from pipelines.score import model_columns
from pipelines.verified import verified
from rollout.targets.target import Candidate
from serving.offline.bulk import BulkScorer

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Customers:
    """The customers of one moment, sorted by identifier; arrays have an entry for each."""

    moment: datetime
    users: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]
    """The network's inputs."""

    @classmethod
    def at(cls, moment: datetime, spec: FeaturesConfig, files: Workspace) -> Self:
        """From the snapshot of `moment`, which was built."""
        record = read_feature_manifest(files)
        names = ["user_id", *(feature.name for feature in spec.features)]
        batches = list(newest(spec, files, record, names, moment=moment, rows=1_000_000))
        table = pa.Table.from_batches(batches).combine_chunks()
        [batch] = table.to_batches(max_chunksize=None)
        return cls(moment, tuple(batch["user_id"].to_pylist()), model_columns(batch, spec.model_dump()))


@dataclass(frozen=True)
class ServedModel:
    """A packaged model that answers in this process."""

    candidate: Candidate
    bundle: Bundle
    scorer: BulkScorer
    trained: datetime
    """The moment of its training."""
    reference: datetime
    """The newest snapshot that it was trained on."""

    @classmethod
    def load(
        cls, settings: Stages, candidate: Candidate, folder: Path, trained: datetime, reference: datetime
    ) -> Self:
        """Verify the archive, unpack it into `folder` and load it. Raises ArchiveError or GateFailure."""
        verified(settings, candidate.path, candidate.sha256).unpack(folder)
        bundle = read_bundle(folder)
        return cls(candidate, bundle, BulkScorer(bundle), trained, reference)

    @cached_property
    def program(self) -> str:
        """The model in the ledger: 12 digits of the program's sha256. The version of the bundle depends on
        the source file too, whose end is after the moment."""
        return program_digest(self.bundle.program)

    def score(self, customers: Customers) -> Floats:
        """Churn probabilities, one a customer."""
        return self.scorer.score(customers.columns)


def program_digest(file: Path) -> str:
    """12 hex digits of the sha256 of an exported program."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def log_answers(model: ServedModel, customers: Customers, scores: Floats, folder: Path) -> None:
    """Write the answers of `model` as a segment of the prediction log.

    A request has an identifier that depends on moment and place only, so that a repeated replay writes equal
    records.
    """
    types = {feature["name"]: str(feature["dtype"]) for feature in model.bundle.spec["features"]}
    types = {name: types.get(name, "float64") for name in model.bundle.inputs}
    origin = Origin(
        model.bundle.model_version, model.bundle.digest, "stable", model.bundle.threshold, types
    )  # fmt: skip
    rows = range(len(customers.users))
    records = Records(
        time=customers.moment,
        latency_ms=0.0,
        request_ids=[f"replay-{customers.moment:%Y%m%d}-{row}" for row in rows],
        rows=rows,
        user_ids=customers.users,
        timestamps=[customers.moment] * len(rows),
        status=["ok"] * len(rows),
        scores=scores.tolist(),
        columns={name: _cells(customers.columns[name]) for name in types},
        overridden={},
    )
    batch = to_arrow([records], origin, schema_of(origin))
    day = folder / f"date={customers.moment:%Y-%m-%d}"
    day.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.Table.from_batches([batch]), day / f"replay-{model.program}.parquet", compression="zstd"
    )


def _cells(column: NDArray[Any]) -> list[Any]:
    """The values with None for missing ones."""
    if column.dtype.kind != "f":
        return list(column.tolist())
    return [None if np.isnan(value) else value for value in column.tolist()]
