"""`churn monitor`: reads what production did, and stores what was measured and found. It starts nothing."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from core.errors import MonitoringError
from features.records import read_records
from features.spec import FeaturesConfig
from monitoring.evidence import write_evidence
from monitoring.findings import Monitored
from monitoring.performance.check import collect_performance
from monitoring.predictions import Predictions
from monitoring.run import collect, judge
from monitoring.sources import Sources
from monitoring.stored import MonitorStore
from pipelines.context import Context, Stages
from pipelines.performance_inputs import performance_inputs
from pipelines.prediction_log import collected_log
from pipelines.references import reference_rows
from pipelines.rollout import open_store
from pipelines.services import service_of_version


def monitor(context: Context, at: datetime, dry_run: bool = False) -> Monitored:
    """One run for the window that ends at `at`; with `dry_run` nothing is stored.

    A repeated run for the same time replaces the first one. Raises FeatureError when there are no records.
    """
    settings = context.settings
    context.progress("reading records, snapshots and predictions")
    collected_log(settings)
    store, model = MonitorStore(settings.rollout.database), settings.serving.model_name
    length = _length(settings)
    before = [run for run in store.runs(model, until=at) if run.at < at]
    version = served_version(settings, at)
    sources = sources_of(settings, at, version)
    evidence = collect(sources, settings.monitoring, before)
    inputs = performance_inputs(settings, at, version)
    if inputs is not None:
        context.progress("measuring the performance on labels")
        measured = collect_performance(inputs, settings.monitoring, before)
        evidence = replace(evidence, tables={**evidence.tables, **measured})
    context.progress("judging")
    checked = judge(evidence)
    digest = "" if dry_run else write_evidence(evidence_folder(settings, at), evidence)
    run = Monitored(model, at, at - length, version, checked, digest)
    if not dry_run:
        store.save(run, context.now())
    return run


def served_version(settings: Stages, at: datetime) -> str:
    """The model version that served at the end of the window: by the prediction log, or else the one that is
    recorded as stable now; empty before the first one."""
    predictions = Predictions.of(settings.files.predictions, at - _length(settings), at)
    if predictions is not None and (version := predictions.version()):
        return version
    stable = open_store(settings).stable(settings.serving.model_name)
    return "" if stable is None else stable.version


def write_evidently(context: Context, at: datetime, file: Path) -> Sequence[str]:
    """Write Evidently's page on the newest snapshot against the training rows; returns the features that are
    left out. Raises MonitoringError when there is nothing to compare."""
    from monitoring.evidently_report import write_drift_report

    context.progress("writing Evidently's page")
    sources = sources_of(context.settings, at, served_version(context.settings, at))
    moments, training = sources.moments(), sources.training_rows()
    if not moments or training is None:
        raise MonitoringError("evidently: no snapshot or no training rows before this time; run `churn run`")
    return write_drift_report(sources.spec, training, sources.snapshot(moments[-1]), file)


def sources_of(settings: Stages, at: datetime, version: str) -> Sources:
    """The files of the workspace, for the window that ends at `at`: the rows that the model `version` was
    trained and tested on, and the features of its service."""
    files = settings.files
    _, records = read_records(files)
    training, test_scores = reference_rows(files, version)
    service = service_of_version(settings, version)
    return Sources(
        spec=service.spec,
        since=at - _length(settings),
        at=at,
        records=records,
        snapshots=service.files.snapshots,
        labels=service.files.labels,
        training=training,
        test_scores=test_scores,
        predictions=files.predictions,
        left_out=_of_other_specs(settings, at, service.spec),
    )


def _of_other_specs(settings: Stages, at: datetime, spec: FeaturesConfig) -> frozenset[str]:
    """The model versions in the log of the window, such as a canary's, that read features of another spec."""
    predictions = Predictions.of(settings.files.predictions, at - _length(settings), at)
    versions = [] if predictions is None else predictions.versions()
    digests = {one: service_of_version(settings, one).spec.digest() for one in versions}
    return frozenset(one for one, digest in digests.items() if digest != spec.digest())


def evidence_folder(settings: Stages, at: datetime) -> Path:
    """The folder of the evidence of the run at this time."""
    return settings.files.monitoring / f"{at:%Y%m%dT%H%M%S}"


def _length(settings: Stages) -> timedelta:
    return timedelta(days=settings.monitoring.every_days)
