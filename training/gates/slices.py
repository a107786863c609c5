"""Divides the test rows by period, and by the segments and groups of `configs/gates.yaml`."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from typing import Any, Literal

import numpy as np
import pandas as pd

from core.errors import ConfigError
from features.spec import FeaturesConfig
from training.config import Division
from training.gates import Parts, Sample
from training.learn.metrics import evaluate

MOST_VALUES = 20
"""Most categories with a separate part; rarer ones are put into one part."""

AUTOMATIC_NUMERIC = 3

MOST_PERIODS = 36
"""Most periods of a report; with more, a coarser division is chosen."""

ENOUGH_JUDGED = 0.9
"""Least share of the rows in periods with enough rows to be judged."""


def segments_of(
    rows: pd.DataFrame, spec: FeaturesConfig, chosen: Literal["auto"] | Sequence[Division]
) -> dict[str, Parts]:
    """The configured segments. `auto` takes every category and the first AUTOMATIC_NUMERIC numbers of the
    spec, which by convention describe customers best."""
    if chosen == "auto":
        names = (*spec.categorical, *spec.numeric[:AUTOMATIC_NUMERIC])
        divisions = [Division(column=name) for name in names]
    else:
        divisions = list(chosen)
    return divide(rows, divisions, "gates.segments")


def divide(rows: pd.DataFrame, divisions: Sequence[Division], where: str) -> dict[str, Parts]:
    """Column -> its parts of the rows. Raises ConfigError for a column that the rows do not have."""
    for division in divisions:
        if division.column not in rows:
            raise ConfigError(
                f"{where}: {division.column} is not a feature; name one of configs/features.yaml"
            )
    return {
        division.column: _by_quantile(rows[division.column], division.bins)
        if pd.api.types.is_numeric_dtype(rows[division.column])
        else _by_value(rows[division.column])
        for division in divisions
    }


def periods_of(rows: pd.DataFrame, min_rows: int) -> Parts:
    """The finest division in time with enough rows: by moment, day, week, month, quarter or year.

    The monthly snapshots of a log are moments with many rows each; a table may have one moment for each row.
    A division is suitable if nine tenths of the rows are in parts of at least `min_rows`, and there are at
    most MOST_PERIODS parts. If none is, years are taken.
    """
    moments = pd.DatetimeIndex(rows["event_timestamp"])
    found = _parts_of(moments)
    if _judgeable(found, min_rows):
        return found
    calendar = moments.tz_localize(None) if moments.tz is not None else moments
    for unit in ("D", "W-SUN", "M", "Q", "Y"):
        found = _parts_of(calendar.to_period(unit))
        if _judgeable(found, min_rows):
            break
    return found


def breakdown(sample: Sample) -> dict[str, dict[str, dict[str, float | None]]]:
    """Metrics of each test period and each segment: division -> part -> metric; null where undefined."""
    return {
        name: {part: _metrics(sample, parts.code == index) for index, part in enumerate(parts.names)}
        for name, parts in {"period": sample.periods, **sample.segments}.items()
    }


def flat(divisions: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, float]:
    """`<division>/<part>/<metric>` -> value, in characters that MLflow allows, without undefined ones."""
    return {
        "/".join(map(_plain, (division, part, metric))): value
        for division, parts in divisions.items()
        for part, metrics in parts.items()
        for metric, value in metrics.items()
        if value is not None
    }


def _metrics(sample: Sample, inside: np.ndarray[Any, Any]) -> dict[str, float | None]:
    found = evaluate(sample.churned[inside], sample.score[inside], sample.threshold)
    return {name: value if isfinite(value) else None for name, value in found.items()}


def _parts_of(times: pd.DatetimeIndex | pd.PeriodIndex) -> Parts:
    codes, known = pd.factorize(times, sort=True)
    days = isinstance(known, pd.DatetimeIndex) and bool((known == known.normalize()).all())
    return Parts(codes.astype(np.int64), tuple(f"{time:%Y-%m-%d}" if days else str(time) for time in known))


def _judgeable(parts: Parts, min_rows: int) -> bool:
    rows = parts.rows
    return len(rows) <= MOST_PERIODS and bool(rows[rows >= min_rows].sum() >= ENOUGH_JUDGED * rows.sum())


def _named(names: Sequence[str]) -> tuple[str, ...]:
    """The names made unique with a number, so that no part replaces another of the same name."""
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    count: dict[str, int] = {}
    found = []
    for name in names:
        count[name] = count.get(name, 0) + 1
        found.append(f"{name} ({count[name]})" if seen[name] > 1 else name)
    return tuple(found)


def _by_quantile(values: pd.Series, bins: int) -> Parts:
    known = values.to_numpy(dtype=np.float64)
    present = np.isfinite(known)
    # counts have many ties: equal quantiles are merged
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    edges = np.unique(np.quantile(known[present], inner)) if present.any() else np.empty(0)
    code = np.where(present, np.searchsorted(edges, known, side="left"), len(edges) + 1)
    ends = [f"{edge:.4g}" for edge in edges]
    names = [f"above {ends[-1]}"] if ends else ["any"]
    if ends:
        names = [f"to {ends[0]}", *(f"{a} to {b}" for a, b in pairwise(ends)), *names]
    return Parts(code.astype(np.int64), _named((*names, "missing")))


def _by_value(values: pd.Series) -> Parts:
    texts = values.astype("object").where(values.notna(), "missing").astype(str)
    frequent = sorted(texts.value_counts().index[:MOST_VALUES])
    code = pd.Categorical(texts, categories=frequent).codes.astype(np.int64)
    return Parts(np.where(code < 0, len(frequent), code), _named((*map(str, frequent), "others")))


def _plain(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "_-. " else "_" for letter in text)
