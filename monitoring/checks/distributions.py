"""Distributions of features, scores and labels against a reference: the training rows, or the same season.

A log grows older, and with it tenure, counts and sums of all customers. That is no drift. So each customer is
compared with the reference customers of the same tenure (direct standardisation): the expected share of a
part of the range is the mean, over the customers of the window, of the reference's share at their tenure.
Customers with a tenure that the reference does not have are left out, and their share is measured.

The population stability index is measured because people know it. It has no error rate, so that findings rest
on the share of customers in each part of the range: they differ where the excess over the margin is evident.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monitoring.checks.shares import log_e_value
from monitoring.config import MonitoringConfig
from monitoring.drift import BINS, bins_of, decile_edges, psi
from monitoring.findings import Cause, Checked, Finding, Measurement, Severity

STRATA = 5
"""Groups of equal tenure, at the quantiles of the reference."""

NULL_JUMP = 0.5
"""By how much the share of missing values has to rise to be a fault rather than drift: 90 % nulls."""

NULL = "null"
"""The part of the range for missing values."""

COLUMNS = ["reference", "feature", "part", "expected", "hits", "rows", "all_rows"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Values of customers, and their tenure (NaN where it is not known)."""

    values: pd.DataFrame
    tenure: Floats

    @classmethod
    def of(cls, rows: pd.DataFrame, names: Sequence[str], tenure: str | None) -> "Sample":
        """The columns `names` that `rows` has. Without a tenure all customers are in one group."""
        known = rows[tenure].to_numpy(dtype=float) if tenure in rows else np.zeros(len(rows))
        return cls(rows[[name for name in names if name in rows and name != tenure]], known)


def count(reference: Sample, window: Sample, name: str) -> pd.DataFrame:
    """Expected and found customers in each part of the range of each column that both samples have.

    `name`: of the reference, `training` or `season`. `expected` is NaN where no customer is comparable.
    """
    strata, comparable = _strata(reference.tenure, window.tenure)
    rows = []
    for column in window.values.columns:
        if column not in reference.values or not len(reference.values):
            continue
        parts, then, now = _parts(reference.values[column], window.values[column])
        shares = _shares(then, strata[0], len(parts))
        expected = (
            shares[strata[1][comparable]].mean(axis=0) if comparable.any() else np.full(len(parts), np.nan)
        )
        hits = np.bincount(now[comparable], minlength=len(parts))
        rows += [
            {"reference": name, "feature": column, "part": part, "expected": float(of), "hits": int(hit),
             "rows": int(comparable.sum()), "all_rows": len(now)}
            for part, of, hit in zip(parts, expected, hits, strict=True)
        ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def check(counts: pd.DataFrame, config: MonitoringConfig) -> Checked:
    """Findings of cause drift: a ticket where a feature differs from every reference, else a line of the
    digest. More than half of the values newly missing is corruption."""
    findings: list[Finding] = []
    measured: list[Measurement] = []
    # each part is tested in both directions, at each of `history` checks
    level = config.level("nulls", 2 * max(len(counts), 1)) + np.log(config.history)
    for feature, of_feature in counts.groupby("feature", sort=False):
        subject = str(feature)
        differing: list[tuple[str, pd.Series]] = []
        references = list(of_feature.groupby("reference", sort=False))
        for name, parts in references:
            rows, every = int(parts["rows"].iloc[0]), int(parts["all_rows"].iloc[0])
            measured.append(Measurement(f"comparable_share_{name}", rows / max(every, 1), every, subject))
            judged = rows >= config.min_rows
            expected, found = parts["expected"].to_numpy(), parts["hits"].to_numpy() / max(rows, 1)
            value = psi(expected, found) if judged else float("nan")
            measured.append(Measurement(f"psi_{name}", value, rows, subject))
            if judged:
                differing += [
                    (str(name), part)
                    for _, part in parts.iterrows()
                    if _differs(part, _margin(part, config), level)
                ]
        if not differing:
            continue
        name, worst = max(differing, key=lambda one: abs(_share(one[1]) - one[1]["expected"]))
        everywhere = len({name for name, _ in differing}) == len(references)
        findings.append(_finding(subject, name, worst, everywhere))
    return Checked(measured, findings)


def _finding(feature: str, reference: str, part: pd.Series, everywhere: bool) -> Finding:
    share, expected = _share(part), float(part["expected"])
    numbers = {"share": share, "expected": expected, "customers": float(part["rows"])}
    if part["part"] == NULL and share - expected > NULL_JUMP:
        return Finding(
            "nulls", feature, Cause.CORRUPTION, Severity.PAGE,
            f"feature {feature}: {share:.0%} of its values are missing, {expected:.0%} in the {reference}"
            " rows; correct its source, then run `churn features build`", numbers,
        )  # fmt: skip
    check_name = {NULL: "nulls"}.get(part["part"], "drift")
    return Finding(
        check_name, feature, Cause.DRIFT, Severity.TICKET if everywhere else Severity.DIGEST,
        f"{feature}: {share:.0%} of customers are in the part {part['part']}, {expected:.0%} of the"
        f" {reference} rows of the same tenure; look at `churn report`, and train again if the model suffers",
        numbers,
    )  # fmt: skip


def _share(part: pd.Series) -> float:
    return float(part["hits"]) / float(part["rows"])


def _margin(part: pd.Series, config: MonitoringConfig) -> float:
    if part["feature"] == "churned":
        return config.drift.labels
    return config.drift.nulls if part["part"] == NULL else config.drift.share


def _differs(part: pd.Series, margin: float, level: float) -> bool:
    hits, rows, expected = float(part["hits"]), float(part["rows"]), float(part["expected"])
    more = log_e_value(hits, rows, expected + margin)
    fewer = log_e_value(rows - hits, rows, 1 - expected + margin)
    return max(more, fewer) >= level


def _strata(
    reference: Floats, window: Floats
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]:
    """The group of tenure of each row of both samples, and whether a row of the window has a tenure that the
    reference has."""
    known = reference[~np.isnan(reference)]
    if not len(known):
        return (np.zeros(len(reference), np.int64), np.zeros(len(window), np.int64)), np.zeros(
            len(window), bool
        )
    edges = np.unique(np.quantile(known, np.linspace(0, 1, STRATA + 1)[1:-1]))
    comparable = (window >= known.min()) & (window <= known.max())
    return (np.searchsorted(edges, reference), np.searchsorted(edges, window)), comparable


def _parts(reference: pd.Series, window: pd.Series) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """The names of the parts of the range, and the part of each value: deciles of the reference or its most
    frequent words, then all other words, then null."""
    if pd.api.types.is_numeric_dtype(reference) and pd.api.types.is_numeric_dtype(window):
        edges = decile_edges(reference.to_numpy(dtype=float))
        names = [f"{place + 1} of {len(edges) + 1}" for place in range(len(edges) + 1)]
        then, now = (bins_of(rows.to_numpy(dtype=float), edges) for rows in (reference, window))
        return [*names, NULL], then, now
    words = list(reference.dropna().astype(str).value_counts().index[:BINS])
    place = {word: number for number, word in enumerate(words)}

    def codes(values: pd.Series) -> NDArray[np.int64]:
        found = values.astype(object).where(values.notna(), None)
        return np.array(
            [len(words) + 1 if v is None else place.get(str(v), len(words)) for v in found], dtype=np.int64
        )

    names = [f"word {number + 1}" for number in range(len(words))]
    return [*names, "other words", NULL], codes(reference), codes(window)


def _shares(parts: NDArray[np.int64], strata: NDArray[np.int64], size: int) -> Floats:
    """[strata, parts]: the shares of the reference within each group of tenure."""
    table = np.zeros((int(strata.max(initial=0)) + 1, size))
    np.add.at(table, (strata, parts), 1.0)
    totals = table.sum(axis=1, keepdims=True)
    overall = table.sum(axis=0) / max(table.sum(), 1)
    return np.asarray(np.where(totals > 0, table / np.maximum(totals, 1), overall))
