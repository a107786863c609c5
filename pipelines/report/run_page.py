"""The report of a run: one self-contained HTML page for managers and engineers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from core.workspace import write_atomically
from monitoring.drift import drift_over_time
from pipelines import plots
from pipelines.context import Context
from pipelines.engine import Outcome
from pipelines.rollout_report import section
from training.decision_value import values_of_scores
from training.evaluate.appraisal import read_appraisal

COLUMNS = ("log_loss", "auroc", "auprc", "accuracy", "precision", "recall", "f1", "brier", "ece")


def write_report(context: Context, record: Mapping[str, Any], outcomes: Sequence[Outcome]) -> Path:
    """Renders `record` (the content of run.json) with plots of the test scores; the path of the page."""
    files, settings = context.files, context.settings
    manifest, metrics = record["data"], record["metrics"]
    start, end = (manifest["window"][edge][:10] for edge in ("start", "end"))
    page = Environment(
        loader=PackageLoader("pipelines"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    ).get_template("report.html.j2")
    html = page.render(
        title="Customer churn report",
        subtitle=f"{manifest['rows']:,} rows ({manifest['shape']}) of {manifest['customers']:,} customers"
        f" ({manifest['source']['kind']}), {start} to {end};"
        f" judged on {metrics['rows']:,.0f} rows the network never saw.",
        gates=record["gates"],
        tiles=[
            (f"{metrics['log_loss']:.4f}", "log loss"),
            (f"{metrics['auroc']:.4f}", "AUROC"),
            (f"{metrics['ece']:.4f}", "calibration error"),
            (f"{metrics['base_rate']:.1%}", "of test customers churned"),
        ],
        columns=COLUMNS,
        models=model_rows(record),
        threshold=settings.training.threshold,
        plots=_plots(context),
        appraisal=read_appraisal(files.training),
        tuning=_tuning(context, record["tuning"]),
        answers=record["answers"],
        rollout=section(record["rollout"]),
        lineage=[
            *_archive_lines(record["archive"]),
            ("data sha256", manifest["output_sha256"]),
            ("feature spec sha256", settings.features.digest()),
            ("source sha256", manifest["input_sha256"]),
            ("hyperparameters", json.dumps(record["tuning"]["parameters"])),
        ],
        timings=outcomes,
    )
    target = files.reports / "churn-report.html"
    write_atomically(target, html)
    return target


def model_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The network, then every baseline by log-loss, each with its metrics or None."""
    rivals = sorted(record["baselines"].items(), key=lambda item: item[1]["log_loss"])
    return [
        {"name": name, **{column: values.get(column) for column in COLUMNS}}
        for name, values in [("network", record["metrics"]), *rivals]
    ]


def _archive_lines(archive: Mapping[str, str] | None) -> list[tuple[str, str]]:
    if archive is None:
        return [("archive", "none: the gates refused the model")]
    return [
        ("archive", f"{Path(archive['path']).name}  sha256 {archive['sha256']}"),
        ("model version", archive["version"]),
    ]


def _plots(context: Context) -> list[dict[str, Any]]:
    scores = pd.read_parquet(context.files.training / "test_scores.parquet")
    y = scores["churned"].to_numpy(dtype=np.float64)
    models = {"network": scores["score"].to_numpy()}
    models |= {
        column.removeprefix("baseline_"): scores[column].to_numpy()
        for column in scores.columns
        if column.startswith("baseline_")
    }
    decision = context.settings.decision
    worth = values_of_scores(scores, context.files.training_set, decision)
    drawn = [
        plots.roc(y, models),
        plots.calibration(y, models["network"]),
        plots.lift(y, models["network"]),
        plots.histogram(y, models["network"], context.settings.training.threshold),
        plots.profit(y, models["network"], decision, worth),
    ]
    return [{"svg": svg, "wide": False} for svg in drawn] + _drift_plot(context, scores)


def _tuning(context: Context, tuned: Mapping[str, Any]) -> dict[str, Any] | None:
    """The study that chose the hyperparameters, or None."""
    if not tuned["study"]:
        return None
    from training.tuning.study import summarise

    study = summarise(tuned["study"], context.settings.tuning)
    # a trial that was pruned before its first epoch ended has no value
    shown = [(t.number, t.value, t.state.name == "COMPLETE") for t in study.trials if t.value is not None]
    drawn = [plots.tuning_history(shown)]
    if study.importances:
        drawn.append(plots.tuning_importances(study.importances))
    return {
        "name": study.name,
        "trials": len(study.trials),
        "pruned": sum(t.state.name == "PRUNED" for t in study.trials),
        "log_loss": tuned["log_loss"],
        "parameters": tuned["parameters"],
        "plots": drawn,
    }


def _drift_plot(context: Context, scores: pd.DataFrame) -> list[dict[str, Any]]:
    """Empty for a table of one moment, which cannot drift."""
    record = json.loads(context.files.feature_manifest.read_text(encoding="utf-8"))
    horizon = context.settings.features.horizon
    first_test = scores["event_timestamp"].min()
    trained = [t for t in map(pd.Timestamp, record["labelled_snapshots"]) if t + horizon <= first_test]
    if len(record["snapshots"]) < 2 or not trained:
        return []
    names = [feature.name for feature in context.settings.features.features]
    table = drift_over_time(context.files.snapshots, names, max(trained))
    return [{"svg": plots.drift(table, max(trained)), "wide": True}]
