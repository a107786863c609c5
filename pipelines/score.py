"""`churn score`: every customer at one moment through the packaged program, the best offers first."""

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

from core.errors import ArchiveError, FeatureError
from core.workspace import Workspace, link_version
from data.config import utc_text
from features.build import MOMENT, build_features, read_feature_manifest
from features.newest import count_newest, newest
from features.spec import FeaturesConfig
from handlers.bundle import Bundle, BundleError, read_bundle
from handlers.scoring.explain import Explainer, NoReference
from pipelines.context import Stages
from pipelines.live import newest_archive
from pipelines.source_ids import SourceIds
from pipelines.verified import verified
from serving.offline.bulk import BulkScorer
from serving.offline.ranked import Ranked, check_target, write_ranked
from training.config import DecisionConfig
from training.decision_value import customer_values, expected_profit

FEATURE = "feature."
"""Before the names of features that travel with the scores to where they are explained."""

EXPLAINED_ROWS = 64
"""At a time: each is scored some 600 times."""

READ_ROWS = 65_536
"""Customers a batch: sixteen of the scorer's calls, and about 15 MB with the shipped spec."""


@dataclass(frozen=True)
class Scored:
    ranked: Ranked
    as_of: datetime
    model_version: str


def score_customers(
    settings: Stages,
    as_of: datetime | None,
    out: Path,
    top: int | None = None,
    reasons: int = 0,
    source_ids: bool = False,
    say: Callable[[str], None] = lambda message: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scored:
    """Write the ranked list to `out` (.parquet or .csv); `as_of`: default the newest built snapshot.

    The program is that of the newest archive, after its signature and parts have been checked; the features
    are the snapshot's where it was built, and are computed from the records otherwise. `top` keeps the first
    so many; each customer kept gets the `reasons` strongest reasons in words, which takes some thousand times
    as long as the score. With `source_ids` each customer has the source's identifier too, and only the owner
    may read the file. `progress` gets how many customers of how many are scored. Raises ConfigError,
    FeatureError, ArchiveError, GateFailure.
    """
    files, spec = settings.files, settings.features
    check_target(out)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".score-", dir=files.root)))
        say("verifying the archive")
        bundle = _packaged(settings, scratch / "model")
        built, moment = _snapshot(spec, files, as_of, scratch / "moment", say)
        say("loading the program")
        scorer = BulkScorer(bundle)
        source, total = _customers(spec, built, moment)
        scored = _scored(source, total, scorer, bundle, settings.decision, moment, bool(reasons), progress)
        finish = Reasons(scorer, bundle, reasons, say) if reasons else _as_it_is
        named = SourceIds(settings, say) if source_ids else _as_it_is
        ranked = write_ranked(scored, out, top, finish=lambda batch: named(finish(batch)), private=source_ids)
    return Scored(ranked, moment, bundle.model_version)


def score_batch(
    customers: pa.RecordBatch,
    scorer: BulkScorer,
    bundle: Bundle,
    decision: DecisionConfig,
) -> pa.RecordBatch:
    """user_id, churn_probability, prediction, expected_value of `customers` (user_id and stored features).

    The expected value of an offer is that of each customer's own worth where the decision names a feature for
    it. The three are null where the model has no finite score.
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
    """Puts reasons in the place of the features that travelled with the scores."""

    scorer: BulkScorer
    bundle: Bundle
    most: int
    say: Callable[[str], None]

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
            self.say(f"reasons of {ranked['rank'][start].as_py() + part.num_rows - 1:,} customers")
        shown = ranked.select([name for name in ranked.schema.names if not name.startswith(FEATURE)])
        for number in range(self.most):
            words = [reasons[number] if number < len(reasons) else None for reasons in texts]
            shown = shown.append_column(f"reason_{number + 1}", pa.array(words, pa.string()))
        return shown


def model_columns(customers: pa.RecordBatch, spec: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The network's inputs from stored features, derived ones computed as the on-demand view does."""
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
    """The numeric ones among the network's inputs."""
    return pd.DataFrame({name: values for name, values in columns.items() if values.dtype.kind in "iuf"})


def _scored(
    batches: Iterator[pa.RecordBatch],
    total: int,
    scorer: BulkScorer,
    bundle: Bundle,
    decision: DecisionConfig,
    moment: datetime,
    with_features: bool,
    progress: Callable[[int, int], None],
) -> Iterator[pa.RecordBatch]:
    done = 0
    for customers in batches:
        batch = score_batch(customers, scorer, bundle, decision)
        batch = batch.append_column("as_of", pa.repeat(pa.scalar(moment, MOMENT), batch.num_rows))
        batch = batch.append_column("model_version", pa.repeat(bundle.model_version, batch.num_rows))
        for name in _stored(bundle.spec) if with_features else ():
            batch = batch.append_column(FEATURE + name, customers[name])
        yield batch
        done += batch.num_rows
        progress(done, total)


def _as_it_is(ranked: pa.RecordBatch) -> pa.RecordBatch:
    return ranked


def _stored(spec: Mapping[str, Any]) -> list[str]:
    return [str(feature["name"]) for feature in spec["features"]]


def _packaged(settings: Stages, folder: Path) -> Bundle:
    """The bundle of the newest archive, unpacked into `folder`."""
    archive = newest_archive(settings.files)
    verified(settings, archive).unpack(folder)
    try:
        bundle = read_bundle(folder)
    except BundleError as error:
        raise ArchiveError(f"{archive.name}: {error}") from None
    if bundle.spec_digest != settings.features.digest():
        raise ArchiveError(
            f"{archive.name}: made for feature spec {bundle.spec_digest[:12]}, configured is "
            f"{settings.features.digest()[:12]}; package a model of this spec, or configure that one"
        )
    return bundle


def _snapshot(
    spec: FeaturesConfig, files: Workspace, as_of: datetime | None, scratch: Path, say: Callable[[str], None]
) -> tuple[Workspace, datetime]:
    """A workspace of our own that holds the features of `as_of`, and the moment itself.

    It has hard links to the files as they are now, so that a build or an ingest which ends meanwhile takes
    nothing away.
    """
    own = Workspace(scratch)
    record = read_feature_manifest(files)
    if as_of is not None and record["shape"] != "transactions":
        raise FeatureError("--as-of: a labelled table carries its own times; leave it out")
    moment = as_of or datetime.fromisoformat(record["latest"])
    if record["spec_digest"] == spec.digest() and utc_text(moment) in record["snapshots"]:
        link_version(files.features, own.features)
        return own, moment
    say(f"computing the features of {moment:%Y-%m-%d}")
    link_version(files.data, own.data)
    moments = [moment] if record["shape"] == "transactions" else None
    build_features(spec, own, moments, say, labels=False)
    return own, moment


def _customers(
    spec: FeaturesConfig, files: Workspace, moment: datetime
) -> tuple[Iterator[pa.RecordBatch], int]:
    """Stored features a customer (of a labelled table the newest row), and how many customers there are."""
    record = read_feature_manifest(files)
    columns = ["user_id", *(feature.name for feature in spec.features)]
    batches = newest(spec, files, record, columns, moment=moment, rows=READ_ROWS)
    return batches, count_newest(spec, files, record, moment)
