"""Evidently's drift report, a page that many people know. No decision rests on it.

Its tests are made anew at each check and keep no error rate over a history (docs/adr/0019), and it compares
without regard to tenure. The findings of `churn monitor` are the ones that count.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from core.errors import MonitoringError
from features.spec import FeaturesConfig

MOST_ROWS = 20_000
"""Rows of each side, drawn with a fixed seed. More rows make the page larger and every difference drift."""


def write_drift_report(
    spec: FeaturesConfig, reference: pd.DataFrame, window: pd.DataFrame, file: Path
) -> Sequence[str]:
    """Write the page about the features of the spec, and return those that are left out.

    Only features are compared, not other columns. One that is missing or empty on either side, on which
    Evidently fails, is left out. Raises MonitoringError when no feature is left.
    """
    names = [feature.name for feature in spec.features]
    there = [name for name in names if _is_filled(reference, name) and _is_filled(window, name)]
    if not there:
        raise MonitoringError("evidently: no feature has values on both sides; run `churn features build`")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Evidently's own plotting and statistics
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        words = [f.name for f in spec.features if f.dtype == "string" and f.name in there]
        columns = DataDefinition(
            numerical_columns=[name for name in there if name not in words], categorical_columns=words
        )
        then, now = (
            Dataset.from_pandas(_drawn(rows[there]), data_definition=columns) for rows in (reference, window)
        )
        page = Report([DataDriftPreset(columns=there)]).run(current_data=now, reference_data=then)
    file.parent.mkdir(parents=True, exist_ok=True)
    page.save_html(str(file))
    return [name for name in names if name not in there]


def _is_filled(rows: pd.DataFrame, name: str) -> bool:
    return name in rows and bool(rows[name].notna().any())


def _drawn(rows: pd.DataFrame) -> pd.DataFrame:
    drawn = rows.sample(MOST_ROWS, random_state=0) if len(rows) > MOST_ROWS else rows
    return drawn.reset_index(drop=True)
