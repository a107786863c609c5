"""The steps from the training set to a registered archive."""

import json
from functools import partial
from typing import TYPE_CHECKING

from core.errors import TrainingError
from core.workspace import write_atomically
from pipelines.code import git_commit
from pipelines.context import Context
from pipelines.steps.settings import chosen, given, searched, trained, training_rows

if TYPE_CHECKING:
    from training.gates import GateReport


def search_settings(context: Context) -> None:
    """Runs the study, writes its best point to tuned.json, and records the trials in MLflow."""
    from training.tuning.study_runs import record_study
    from training.tuning.tune import tune

    settings = context.settings
    best = tune(training_rows(context), given(context), searched(context), context.files, context.progress)
    record = {
        "study": best.study,
        "trials": best.trials,
        "log_loss": best.best_log_loss,
        "parameters": best.best_params,
    }
    if best.study:
        context.progress("recording the trials in MLflow")
        record_study(best.study, settings.training, settings.tuning)
    write_atomically(context.files.tuned, json.dumps(record, indent=2))


def train_model(context: Context) -> None:
    """Fits the model with the chosen settings."""
    from training.train import train

    train(training_rows(context), chosen(context), context.files, context.progress)


def judge_model(context: Context) -> None:
    """Applies the gates and writes the report. A refused model is recorded in MLflow here."""
    from features.store import serving_yaml
    from training.gates import Override, judge, write_report
    from training.gates.collect import collect_evidence
    from training.gates.slices import breakdown
    from training.release.package import stage

    settings, files, model = context.settings, context.files, trained(context)
    overrides = tuple(Override.by(context.who, context.as_of, *override) for override in context.overrides)
    context.progress("scoring the test rows with the exported program")
    candidate = partial(stage, model, serving_yaml(settings.features, files))
    evidence = collect_evidence(training_rows(context), model, settings.gates, candidate)
    context.progress("judging")
    parts = breakdown(evidence.sample) if evidence.sample is not None else None
    report = judge(settings.gates, evidence, overrides)
    write_report(report, files, parts)
    if not report.passed:
        try:
            _record(context, report)
        except TrainingError:
            if evidence.champion is None or evidence.champion.state != "unusable":
                raise  # with an unusable champion, the report states the same error and refuses for it


def package_model(context: Context) -> None:
    """Records the run, packages the archive, verifies it, and registers it as the challenger."""
    from features.store import serving_yaml
    from pipelines.references import keep_reference
    from pipelines.verified import verified
    from training.release.content import Run
    from training.release.package import package, passed_report
    from training.release.register import register

    settings, files, model = context.settings, context.files, trained(context)
    report, commit = passed_report(files), git_commit()
    run = Run(_record(context, report), commit)
    context.progress("archiving")
    archive = package(model, serving_yaml(settings.features, files), run)
    context.progress("registering the challenger")
    verified(settings, archive.path, archive.sha256)
    register(model, archive, run, report, context.who, context.as_of)
    keep_reference(files, archive.version, settings.training)


def _record(context: Context, report: "GateReport") -> str:
    """Records the judged model as a run in MLflow, passed or refused; the id of the run."""
    from pipelines.plots import of_scores
    from training.release.tracking import record_run

    files, decision = context.files, context.settings.decision
    context.progress("recording the run in MLflow")
    drawn = of_scores(files.training / "test_scores.parquet", decision, files.training_set)
    return record_run(trained(context), report, git_commit(), drawn)
