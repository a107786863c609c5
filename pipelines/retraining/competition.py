"""The step in which windows of history compete: a fit on each, judged on newer validation rows.

The rows of the test set, by which the gates judge, choose nothing. The validation snapshot is one horizon
after the last snapshot that any of these fits learns from.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from core.errors import TrainingError
from core.workspace import write_atomically
from pipelines.context import Context
from pipelines.steps.settings import chosen
from retraining.windows import Window, windows


def choose_window(context: Context) -> None:
    """Writes `training_window`: the snapshots that are left out, and the loss of each candidate."""
    from training.train import prepare

    settings, file = context.settings, context.files.training_window
    rows = pd.read_parquet(context.files.training_set)
    if settings.data.shape != "transactions":
        write_atomically(file, json.dumps({"chosen": "all rows", "left_out": [], "candidates": []}))
        return
    rows, split = prepare(rows, chosen(context))
    moments = rows["event_timestamp"]

    def snapshots(part: Any) -> list[pd.Timestamp]:
        return sorted(moments.iloc[part].unique())

    inner, validation = snapshots(split.inner_train), snapshots(split.inner_validation)
    candidates = windows(settings.retrain.windows, inner, validation[-1])
    losses = _judged(context, rows, candidates, split.inner_validation)
    known = {name: loss for name, loss in losses.items() if loss is not None}
    # of equal ones the first, which has the longest history
    best = min(known, key=known.__getitem__, default=candidates[0].name)
    # the same window for the final fit, which is used after the newest test snapshot
    train, test = snapshots(split.train), snapshots(split.test)
    final = {window.name: window for window in windows(settings.retrain.windows, train, test[-1])}
    kept = final[best].moments if best in final else tuple(train)
    left_out = [at for at in train if at not in kept]
    record = {
        "chosen": best,
        "left_out": [at.isoformat() for at in left_out] if _can_be_split(context, rows, left_out) else [],
        "candidates": [
            {"window": one.name, "snapshots": len(one.moments), "log_loss": losses[one.name]}
            for one in candidates
        ],
    }
    write_atomically(file, json.dumps(record, indent=1))


def _judged(
    context: Context, rows: pd.DataFrame, candidates: Sequence[Window], validation: Any
) -> dict[str, float | None]:
    """Name -> log-loss on the validation rows; None where too few rows are in the window, and for a single
    window, which needs no fit."""
    from training.learn.fit import fit
    from training.learn.metrics import log_losses
    from training.tuning.trial import one_member

    if len(candidates) == 1:
        return {candidates[0].name: None}
    judged, settings = rows.iloc[validation], one_member(chosen(context))
    churned = judged["churned"].to_numpy(dtype=np.int64)
    losses: dict[str, float | None] = {}
    for window in candidates:
        context.progress(f"training on {window.name}")
        learned = rows[rows["event_timestamp"].isin(window.moments)]
        try:
            if learned["churned"].nunique() < 2:
                raise TrainingError("one class")
            loss = float(log_losses(churned, fit(learned, None, settings).score(judged)).mean())
        except TrainingError:
            losses[window.name] = None
            continue
        losses[window.name] = loss if np.isfinite(loss) else None
    return losses


def _can_be_split(context: Context, rows: pd.DataFrame, left_out: Sequence[pd.Timestamp]) -> bool:
    """Whether training and validation rows remain without these snapshots."""
    from training.train import prepare

    try:
        prepare(rows[~rows["event_timestamp"].isin(left_out)], chosen(context))
    except TrainingError:
        return False
    return True
