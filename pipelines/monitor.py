"""`churn monitor`: reads what production did, and stores what was measured and found. It starts nothing."""

from datetime import datetime, timedelta
from pathlib import Path

from features.records import read_records
from monitoring.evidence import write_evidence
from monitoring.findings import Monitored
from monitoring.run import collect, judge
from monitoring.sources import Sources
from monitoring.stored import MonitorStore
from pipelines.context import Context, Stages
from pipelines.rollout import open_store


def monitor(context: Context, at: datetime, dry_run: bool = False) -> Monitored:
    """One run for the window that ends at `at`; with `dry_run` nothing is stored.

    A repeated run for the same time replaces the first one. Raises FeatureError when there are no records.
    """
    settings = context.settings
    context.progress("reading records, snapshots and predictions")
    store, model = MonitorStore(settings.rollout.database), settings.serving.model_name
    length = timedelta(days=settings.monitoring.every_days)
    earlier = store.runs(model, at - (settings.monitoring.history + 2) * length, at)
    before = [run for run in earlier if run.at < at]
    evidence = collect(sources_of(settings, at), settings.monitoring, before)
    context.progress("judging")
    checked = judge(evidence)
    stable = open_store(settings).stable(model)
    digest = "" if dry_run else write_evidence(evidence_folder(settings, at), evidence)
    run = Monitored(model, at, at - length, "" if stable is None else stable.version, checked, digest)
    if not dry_run:
        store.save(run, context.now())
    return run


def sources_of(settings: Stages, at: datetime) -> Sources:
    """The files of the workspace, for the window that ends at `at`."""
    files = settings.files
    _, records = read_records(files)
    return Sources(
        spec=settings.features,
        since=at - timedelta(days=settings.monitoring.every_days),
        at=at,
        records=records,
        snapshots=files.snapshots,
        labels=files.labels,
        training=files.training_set,
        test_scores=files.training / "test_scores.parquet",
        predictions=files.predictions,
    )


def evidence_folder(settings: Stages, at: datetime) -> Path:
    """The folder of the evidence of the run at this time."""
    return settings.files.monitoring / f"{at:%Y%m%dT%H%M%S}"
