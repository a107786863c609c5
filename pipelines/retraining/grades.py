"""Grades the decisions whose labels have matured: scores the customers after a decision with both models."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from core.errors import ChurnError, TrainingError
from pipelines.archives import version_of
from pipelines.context import Context
from pipelines.verified import verified
from retraining.grading import Compared, Floats, grade
from retraining.ledger import Entry, Grade, Ledger, Run
from training.evaluate.baselines import Task, logistic_regression
from training.evaluate.bootstrap import Resampling
from training.gates.champion_scores import scored_by
from training.learn.inputs import Inputs


def grade_matured(context: Context, ledger: Ledger, now: datetime) -> Iterator[Grade]:
    """Grades, once each, the decisions of which all labels within a horizon have matured at `now`.

    The labels are those of the snapshots within one horizon after the decision. A decision whose model is no
    longer on this machine is not graded; the reason is reported as progress.
    """
    settings = context.settings
    model, horizon = settings.serving.model_name, settings.features.horizon
    graded = ledger.grades(model)
    due = [one for one in ledger.entries(model) if one.number not in graded and one.at + 2 * horizon <= now]
    if not due or settings.data.shape != "transactions":
        return
    rows = _labelled(context)
    ends = rows["event_timestamp"] + horizon
    runs = {run.decision: run for run in ledger.runs(model)}
    how = Resampling(settings.gates.resamples, settings.gates.confidence, settings.training.seed)
    for entry in due:
        moments = rows["event_timestamp"]
        after = rows[(moments >= entry.at) & (moments < entry.at + horizon) & (ends <= now)]
        if after.empty:
            continue
        before = rows[ends <= entry.at]
        try:
            compared = _compared(context, entry, runs.get(entry.number), before, after)
        except ChurnError as error:
            context.progress(f"decision {entry.number} cannot be graded: {error}")
            continue
        found = grade(entry.number, entry.decision.action, compared, settings.decision, now, how)
        ledger.save_grade(found)
        yield found


def _labelled(context: Context) -> pd.DataFrame:
    from features.history import training_set

    return training_set(context.settings.features, context.files, context.progress)


def _compared(
    context: Context, entry: Entry, run: Run | None, before: pd.DataFrame, after: pd.DataFrame
) -> Compared:
    without = _scores(context, str(entry.state["version"]), None, after)
    if run is not None and run.candidate is not None:
        trained = _scores(context, run.candidate.version, run.candidate.sha256, after)
        return Compared(after, without, trained, f"the candidate {run.candidate.version}")
    return Compared(after, without, _shadow(context, before, after), "a model trained then")


def _scores(context: Context, version: str, sha256: str | None, rows: pd.DataFrame) -> Floats:
    """[B] by the archive of a version in the store of models. Raises ChurnError where it is not there."""
    settings, store = context.settings, context.settings.files.model_store
    for archive in sorted(store.rglob("*.mar")):
        if version_of(archive) != version:
            continue
        checked = verified(settings, archive)
        if sha256 is not None and checked.sha256 != sha256:
            continue
        with TemporaryDirectory() as scratch:
            return scored_by(rows, settings.features, checked.unpack(Path(scratch)), context.files)
    raise ChurnError(f"the archive of version {version or 'unknown'} is not in {store}")


def _shadow(context: Context, before: pd.DataFrame, after: pd.DataFrame) -> Floats:
    """[B] by a logistic regression on the labels that had matured at the decision: a training in seconds."""
    if before["churned"].nunique() < 2:
        raise TrainingError("no labels of both outcomes had matured then")
    spec = context.settings.features
    inputs = Inputs.learn(before, spec)
    seed = context.settings.training.seed
    task = Task(before, after, inputs, spec.horizon, context.files.records, seed)
    return np.asarray(logistic_regression(task), dtype=np.float64)
