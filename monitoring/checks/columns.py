"""Columns that are missing, empty or constant in the newest snapshot, compared with the training rows.

These are facts about the data and not estimates, so they need no error rate.
"""

from collections.abc import Sequence

import pandas as pd

from monitoring.config import MonitoringConfig
from monitoring.findings import Cause, Checked, Finding, Measurement, Severity

COLUMNS = ["feature", "present", "reference_rows", "reference_nulls", "reference_distinct", "window_rows",
           "window_nulls", "window_distinct"]  # fmt: skip
EMPTY = pd.DataFrame(columns=COLUMNS)
"""The counts where there is no snapshot."""


def count(used: Sequence[str], reference: pd.DataFrame | None, window: pd.DataFrame) -> pd.DataFrame:
    """A row for each used feature: rows, nulls and distinct values in reference and window.

    `present` is false for a column that the window lacks. A missing reference has 0 rows.
    """
    return pd.DataFrame(
        [
            {
                "feature": name,
                "present": name in window,
                **_facts("reference", reference, name),
                **_facts("window", window, name),
            }
            for name in used
        ],
        columns=COLUMNS,
    )


def check(columns: pd.DataFrame, config: MonitoringConfig) -> Checked:
    """Findings of cause corruption. `columns` is from `count`."""
    findings: list[Finding] = []
    measured: list[Measurement] = []
    for row in columns.to_dict("records"):
        feature, rows, nulls = str(row["feature"]), int(row["window_rows"]), int(row["window_nulls"])
        share = nulls / rows if rows and row["present"] else float("nan")
        measured.append(Measurement("missing_share", share, rows, feature))
        numbers = {"rows": float(rows), "reference_distinct": float(row["reference_distinct"])}
        if not row["present"]:
            findings.append(_finding("column_missing", feature, numbers, "is not in the newest snapshot"))
        elif rows < config.min_rows:
            continue
        elif nulls == rows and row["reference_nulls"] < row["reference_rows"]:
            what = f"has no value for any of {rows:,} customers"
            findings.append(_finding("column_empty", feature, numbers, what))
        elif row["window_distinct"] == 1 and row["reference_distinct"] > 1 and nulls == 0:
            what = f"is the same for all {rows:,} customers"
            findings.append(_finding("column_constant", feature, numbers, what))
    return Checked(measured, findings)


def _facts(of: str, rows: pd.DataFrame | None, name: str) -> dict[str, int]:
    if rows is None or name not in rows:
        return {f"{of}_rows": 0 if rows is None else len(rows), f"{of}_nulls": 0, f"{of}_distinct": 0}
    column = rows[name]
    return {
        f"{of}_rows": len(column),
        f"{of}_nulls": int(column.isna().sum()),
        f"{of}_distinct": int(column.nunique()),
    }


def _finding(check: str, feature: str, numbers: dict[str, float], what: str) -> Finding:
    return Finding(
        check,
        feature,
        Cause.CORRUPTION,
        Severity.PAGE,
        f"feature {feature} {what}; correct its source, then run `churn features build`",
        numbers,
    )
