"""`churn score`: scores every customer at one moment with the packaged program, the best offers first."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core.errors import ArchiveError, ConfigError, FeatureError
from core.workspace import Workspace, link_version
from data.config import utc_text
from features.build import MOMENT, build_features, read_feature_manifest
from features.newest import count_newest, newest
from features.spec import FeaturesConfig
from handlers.bundle import Bundle, BundleError, read_bundle
from handlers.scoring.explain import Explainer, NoReference
from pipelines.archives import archive_of_version, registered_version
from pipelines.context import Stages
from pipelines.live import newest_archive
from pipelines.score_parts import Part, metadata
from pipelines.services import decision_for, service_of
from pipelines.source_ids import SourceIds
from pipelines.verified import verified
from serving.offline.bulk import BulkScorer
from serving.offline.ranked import Ranked, check_target, write_ranked
from training.config import DecisionConfig
from training.decision_value import customer_values, expected_profit

FEATURE = "feature."
"""Prefix of the columns that pass features to the explanation of the scores."""

EXPLAINED_ROWS = 64
"""Customers that are explained at a time: each is scored about 600 times."""

READ_ROWS = 65_536
"""Customers in a batch: sixteen calls of the scorer, and about 15 MB with the shipped spec."""


@dataclass(frozen=True)
class Scored:
    """The list that was written, its moment and the version of the model."""

    ranked: Ranked
    as_of: datetime
    model_version: str


@dataclass(frozen=True)
class ScoreRequest:
    """The ranked list that is wanted."""

    out: Path
    """Its file, .parquet or .csv."""
    as_of: datetime | None = None
    """The moment of the features; None: the newest built snapshot."""
    top: int | None = None
    """Customers in the list, best first; None: all."""
    reasons: int = 0
    """Reasons in words for each customer in the list; they take some thousand times as long as the score."""
    version: str | None = None
    """The version of the model, as in its archive or the registry, or an alias; None: packaged last."""
    source_ids: bool = False
    """Adds the source's identifiers; then only the owner may read the file."""
    part: Part | None = None
    """Scores this range of the customers, for `merge_parts`; None: all."""


def score_customers(
    settings: Stages,
    wanted: ScoreRequest,
    announce: Callable[[str], None] = lambda message: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scored:
    """Scores every customer and writes the ranked list.

    The program is that of the wanted archive, after its signature and parts have been checked. The features
    are those of its own spec: of the snapshot if it was built, and computed from the records otherwise.
    `announce` is called with each stage of the work, `progress` with the number of scored customers and of
    all. Raises ConfigError, FeatureError, ArchiveError, GateFailure.
    """
    reasons, part = wanted.reasons, wanted.part
    files = settings.files
    if part is not None and wanted.source_ids:
        raise ConfigError("--source-ids: leave it out with --part, and give it to `churn score --merge`")
    check_target(wanted.out)
    out = wanted.out if part is None else part.file(wanted.out)
    out.parent.mkdir(exist_ok=True)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".score-", dir=files.root)))
        announce("verifying the archive")
        bundle = _unpacked(settings, wanted.version, scratch / "model")
        service = service_of(settings, bundle.spec)
        spec = service.spec
        built, moment = snapshot_at(spec, service.files, wanted.as_of, scratch / "moment", announce)
        announce("loading the program")
        scorer = BulkScorer(bundle)
        source, total = _customers(spec, built, moment, part)
        customers = Customers(source, total, moment)
        decision = decision_for(settings, spec)
        scored = _scored(customers, scorer, bundle, decision, bool(reasons), progress)
        finish = Reasons(scorer, bundle, reasons, announce) if reasons else _unchanged
        named = SourceIds(settings, announce) if wanted.source_ids else _unchanged
        ranked = write_ranked(
            scored,
            out,
            wanted.top,
            finish=lambda batch: named(finish(batch)),
            private=wanted.source_ids,
            metadata=None if part is None else metadata(_facts(decision, wanted, bundle, built, moment)),
            may_be_empty=part is not None,
        )
    return Scored(ranked, moment, bundle.model_version)


def score_batch(
    customers: pa.RecordBatch,
    scorer: BulkScorer,
    bundle: Bundle,
    decision: DecisionConfig,
) -> pa.RecordBatch:
    """user_id, churn_probability, prediction, expected_value of `customers` (user_id and stored features).

    The expected value of an offer uses the value of each customer, if the decision names a feature for it.
    The three columns are null where the score is not finite.
    """
    columns = model_columns(customers, bundle.spec)
    scores = scorer.score(columns)
    values = customer_values(numbers_of(columns), decision)
    known = np.isfinite(scores)
    risk = pc.if_else(pa.array(scores > bundle.threshold), "High Risk", "Low Risk")
    unknown = pa.array(~known)
    return pa.RecordBatch.from_arrays(
        [
            customers["user_id"],
            pa.array(scores, mask=~known),
            pc.if_else(unknown, pa.scalar(None, pa.string()), risk),
            pa.array(expected_profit(scores, decision, values), mask=~known),
        ],
        ["user_id", "churn_probability", "prediction", "expected_value"],
    )


@dataclass(frozen=True)
class Reasons:
    """Replaces the features in the columns FEATURE by the reasons of each score."""

    scorer: BulkScorer
    bundle: Bundle
    most: int
    announce: Callable[[str], None]

    def __call__(self, ranked: pa.RecordBatch) -> pa.RecordBatch:
        stored = _stored(self.bundle.spec)
        explainer = Explainer(self.scorer.score, self.bundle.spec, self.bundle.reference)
        texts: list[list[str]] = []
        for start in range(0, ranked.num_rows, EXPLAINED_ROWS):
            part = ranked.slice(start, EXPLAINED_ROWS)
            customers = pa.RecordBatch.from_arrays([part[FEATURE + name] for name in stored], stored)
            columns = {
                name: values.tolist() for name, values in model_columns(customers, self.bundle.spec).items()
            }
            try:
                found = explainer.explain(columns, range(part.num_rows))
            except NoReference as error:
                raise ArchiveError(f"--reasons: {error}") from None
            texts += [explainer.reasons(columns, row, why, self.most) for row, why in enumerate(found)]
            self.announce(f"reasons of {ranked['rank'][start].as_py() + part.num_rows - 1:,} customers")
        shown = ranked.select([name for name in ranked.schema.names if not name.startswith(FEATURE)])
        for number in range(self.most):
            words = [reasons[number] if number < len(reasons) else None for reasons in texts]
            shown = shown.append_column(f"reason_{number + 1}", pa.array(words, pa.string()))
        return shown


def model_columns(customers: pa.RecordBatch, spec: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The network's inputs [B] from stored features; derived ones are computed as in the on-demand view."""
    columns: dict[str, NDArray[Any]] = {
        feature["name"]: customers[feature["name"]].to_numpy(zero_copy_only=False)
        for feature in spec["features"]
    }
    for ratio in spec["derived"]:
        top = np.asarray(columns[ratio["numerator"]], dtype=np.float64)
        bottom = np.asarray(columns[ratio["denominator"]], dtype=np.float64)
        columns[ratio["name"]] = top / np.maximum(bottom, float(ratio["floor"]))
    return columns


def numbers_of(columns: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
    """The numeric inputs of the network as a table."""
    return pd.DataFrame({name: values for name, values in columns.items() if values.dtype.kind in "iuf"})


@dataclass(frozen=True)
class Customers:
    """The customers of one moment, in batches of user_id and stored features."""

    batches: Iterator[pa.RecordBatch]
    total: int
    moment: datetime


def _scored(
    customers: Customers,
    scorer: BulkScorer,
    bundle: Bundle,
    decision: DecisionConfig,
    with_features: bool,
    progress: Callable[[int, int], None],
) -> Iterator[pa.RecordBatch]:
    done = 0
    for features in customers.batches:
        batch = score_batch(features, scorer, bundle, decision)
        moment = pa.repeat(pa.scalar(customers.moment, MOMENT), batch.num_rows)
        batch = batch.append_column("as_of", moment)
        batch = batch.append_column("model_version", pa.repeat(bundle.model_version, batch.num_rows))
        for name in _stored(bundle.spec) if with_features else ():
            batch = batch.append_column(FEATURE + name, features[name])
        yield batch
        done += batch.num_rows
        progress(done, customers.total)


def _unchanged(ranked: pa.RecordBatch) -> pa.RecordBatch:
    return ranked


def _stored(spec: Mapping[str, Any]) -> list[str]:
    return [str(feature["name"]) for feature in spec["features"]]


def _unpacked(settings: Stages, version: str | None, folder: Path) -> Bundle:
    """The bundle of the archive of `version`, or of the newest one, unpacked into `folder`."""
    if version is None:
        archive = verified(settings, newest_archive(settings.files))
    else:
        archive = archive_of_version(settings, registered_version(settings, version))
    archive.unpack(folder)
    try:
        return read_bundle(folder)
    except BundleError as error:
        raise ArchiveError(f"version {archive.version}: {error}") from None


def snapshot_at(
    spec: FeaturesConfig,
    files: Workspace,
    as_of: datetime | None,
    scratch: Path,
    announce: Callable[[str], None],
) -> tuple[Workspace, datetime]:
    """A temporary workspace with the features of `as_of`, and the moment itself.

    It has hard links to the current files, so that a build or an ingest that ends meanwhile removes none.
    """
    own = Workspace(scratch)
    files = files if files.feature_manifest.is_file() else Workspace(files.root)
    record = read_feature_manifest(files)
    if as_of is not None and record["shape"] != "transactions":
        raise FeatureError("--as-of: a labelled table carries its own times; leave it out")
    moment = as_of or datetime.fromisoformat(record["latest"])
    if record["spec_digest"] == spec.digest() and utc_text(moment) in record["snapshots"]:
        link_version(files.features, own.features)
        return own, moment
    announce(f"computing the features of {moment:%Y-%m-%d}")
    link_version(files.data, own.data)
    moments = [moment] if record["shape"] == "transactions" else None
    build_features(spec, own, moments, announce, labels=False)
    return own, moment


def _customers(
    spec: FeaturesConfig, files: Workspace, moment: datetime, part: Part | None
) -> tuple[Iterator[pa.RecordBatch], int]:
    """The stored features of each customer (the newest row in a table), and about how many customers."""
    record = read_feature_manifest(files)
    columns = ["user_id", *(feature.name for feature in spec.features)]
    batches = newest(spec, files, record, columns, moment=moment, rows=READ_ROWS)
    total = count_newest(spec, files, record, moment)
    return (batches, total) if part is None else (map(part.of_batch, batches), total // part.of)


def _facts(
    decision: DecisionConfig, wanted: ScoreRequest, bundle: Bundle, built: Workspace, moment: datetime
) -> dict[str, Any]:
    """What the parts of one list have in common."""
    record = read_feature_manifest(built)
    return {
        "moment": utc_text(moment),
        "model_version": bundle.model_version,
        "records": record["manifest_sha256"],
        "features": record["spec_digest"],
        "decision": decision.model_dump(mode="json"),
        "top": wanted.top,
        "reasons": wanted.reasons,
    }
