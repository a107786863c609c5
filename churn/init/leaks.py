"""Finds columns that reveal the target: their values are known only after the customer has left."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from churn.init import words
from churn.init.columns import Column

TOO_GOOD = 0.975
"""The AUROC of one column from which it reveals the target. The gate `leak` refuses a model above .98."""
FEW = 20


def revealing(column: Column, churned: NDArray[np.float64]) -> str | None:
    """Why the column reveals `churned` (1, 0 or NaN per row), or None."""
    known = np.isfinite(churned)
    label = churned[known]
    if words.mentions(column.name, words.REVEALS):
        return "its name is about leaving"
    there = column.texts.notna().to_numpy()[known]
    if words.mentions(column.name, words.END_DATE) and (column.dates is not None or _date_named(column)):
        return "an end date, which is known only when the customer leaves"
    if reason := _filled_when(there, label):
        return reason
    if column.numeric:
        auroc = _auroc(column.numbers[known], label)
    else:
        auroc = _auroc(_rates(column.texts[known], label), label)
    if max(auroc, 1 - auroc) >= TOO_GOOD:
        return f"alone it separates the classes almost perfectly (AUROC {max(auroc, 1 - auroc):.3f})"
    return None


def _date_named(column: Column) -> bool:
    return words.mentions(column.name, "date* datum* *date *datum fecha")


def _filled_when(there: NDArray[np.bool_], label: NDArray[np.float64]) -> str | None:
    """A reason or a date of leaving is present (or missing) only if the customer left."""
    base = label.mean() if len(label) else 0.0
    if min(there.sum(), (~there).sum()) < FEW or not 0 < base < 1:
        return None
    if label[there].mean() > 0.98 and base < 0.9:
        return f"filled only when the customer left ({label[there].mean():.0%} of {there.sum():,} rows)"
    if label[~there].mean() > 0.98 and base < 0.9 and (~there).sum() > 0.3 * label.sum():
        return f"missing only when the customer left ({label[~there].mean():.0%} of {(~there).sum():,} rows)"
    return None


def _rates(texts: pd.Series, label: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of churned rows for the value of each row; the mean for values of fewer than FEW rows."""
    frame = pd.DataFrame({"value": texts.fillna("\0missing").to_numpy(), "label": label})
    grouped = frame.groupby("value")["label"]
    rate = grouped.transform("mean").where(grouped.transform("size") >= FEW, label.mean())
    return np.asarray(rate, float)


def _auroc(score: NDArray[np.float64], label: NDArray[np.float64]) -> float:
    """The AUROC, with missing scores as the median; .5 if one class is missing."""
    score = np.where(np.isfinite(score), score, np.nanmedian(score) if np.isfinite(score).any() else 0.0)
    positives = label.sum()
    negatives = len(label) - positives
    if positives == 0 or negatives == 0:
        return 0.5
    ranks = pd.Series(score).rank().to_numpy()
    return float((ranks[label == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))
