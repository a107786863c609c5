"""How each customer's features change from one snapshot to the next.

A fault changes the features of the same customers at once: values become null or the default, have another
unit, or shrink although they can only grow. Comparing each customer with himself leaves out everything that
differs between customers. A snapshot is compared with the last one without a finding, so that a fault is
found again as long as it lasts.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.spec import Feature, FeaturesConfig
from monitoring.checks.shares import History, Judged, Margin, Properties
from monitoring.config import MonitoringConfig
from monitoring.findings import Cause, Checked, Finding, Measurement, Severity

SHRINKS = 0.001
"""A feature of which fewer customers than this share have ever had a decrease can only grow."""

ALMOST_ALL = 0.95
"""Share of the customers with another value who may fall back to the default of a window, such as no purchase
in the last 30 days. It varies with the season and the age of the log; above it, the feature is stuck."""

LONGEST_REFERENCE = 3
"""Snapshots after which a snapshot with findings becomes the reference, so that a lasting change of meaning
does not stay a fault for ever."""

EVERY_FEATURE = "all"

Kinds = dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]
"""Kind of change -> who has it, and who could."""


def follow(
    snapshots: Iterable[tuple[pd.Timestamp, pd.DataFrame]],
    spec: FeaturesConfig,
    config: MonitoringConfig,
) -> pd.DataFrame:
    """Count the changes along `snapshots`, which are in ascending order and indexed by customer.

    Returns a row for each snapshot after the first, feature and kind: `moment`, `reference`, `subject`,
    `kind`, `hits`, `rows`. One snapshot and its reference are in memory at a time.
    """
    counts: list[pd.DataFrame] = []
    histories = Histories(spec, config)
    reference: tuple[pd.Timestamp, pd.DataFrame] | None = None
    held = 0
    for moment, rows in snapshots:
        if reference is not None:
            found = changes(reference[1], rows, spec, config).counts()
            counts.append(found.assign(moment=moment, reference=reference[0]))
            faulty = any(judged.is_alarm for judged in histories.add(found).values())
            held = held + 1 if faulty and held < LONGEST_REFERENCE else 0
        if not held:
            reference = moment, rows
    columns = ["subject", "kind", "hits", "rows", "moment", "reference"]
    return pd.concat(counts, ignore_index=True) if counts else pd.DataFrame(columns=columns)


def changes(
    before: pd.DataFrame, now: pd.DataFrame, spec: FeaturesConfig, config: MonitoringConfig
) -> Properties:
    """The changes of the customers of both snapshots, in the order of `now`. Both are indexed by customer."""
    now = now[now.index.isin(before.index)]
    before = before.loc[now.index]
    columns: dict[tuple[str, str], tuple[NDArray[np.bool_], NDArray[np.bool_]]] = {}
    equal = np.ones(len(now), dtype=bool)
    for feature in spec.features:
        if feature.name not in before or feature.name not in now:
            continue
        old, new = before[feature.name].to_numpy(), now[feature.name].to_numpy()
        if feature.dtype == "string":
            kinds, alike = _of_words(old, new, feature.default)
        else:
            kinds, alike = _of_numbers(old, new, feature.default, np.log(config.transitions.ratio))
        if reads_age(feature):
            del kinds["decreased"]  # a window forgets purchases, and so shrinks by itself
        equal &= alike
        columns |= {(feature.name, kind): of for kind, of in kinds.items()}
    columns[EVERY_FEATURE, "unchanged"] = equal, np.ones(len(now), dtype=bool)
    return Properties.of(columns, len(now))


def reads_age(feature: Feature) -> bool:
    """Whether the feature depends on the time that has passed, such as purchases of the last 30 days."""
    return "age_days" in feature.reading.columns


def check(counts: pd.DataFrame, spec: FeaturesConfig, config: MonitoringConfig) -> Checked:
    """Findings of the newest snapshot. `counts` is from `follow`."""
    findings: list[Finding] = []
    measured: list[Measurement] = []
    histories, newest = Histories(spec, config), dict[tuple[str, str], Judged]()
    for _, found in counts.groupby("moment", sort=True):
        newest = histories.add(found)
    for (feature, kind), judged in newest.items():
        measured.append(Measurement(f"{kind}_share", judged.share, judged.rows, feature))
        if judged.is_alarm:
            numbers = {"share": judged.share, "bound": judged.bound, "customers": float(judged.rows)}
            cause = Cause.STALENESS if kind == "unchanged" else Cause.CORRUPTION
            message = MESSAGES[kind].format(
                feature=feature, share=judged.share, bound=judged.bound, ratio=config.transitions.ratio
            )
            findings.append(Finding(CHECKS[kind], feature, cause, Severity.PAGE, message, numbers))
    return Checked(measured, findings)


CHECKS = {
    "newly_null": "newly_null",
    "newly_default": "stuck_at_default",
    "larger": "unit_change",
    "smaller": "unit_change",
    "decreased": "decrease",
    "unchanged": "copied_snapshot",
}
"""Kind of change -> name of the check. A feature cannot become larger and smaller for most customers."""

_REMEDY = "compare its source with the snapshot before, then run `churn features build`"
MESSAGES = {
    "newly_null": "feature {feature}: {share:.0%} of its values became null, more than {bound:.0%}; "
    + _REMEDY,
    "newly_default": "feature {feature}: {share:.0%} of its values became the default, more than"
    " {bound:.0%}; " + _REMEDY,
    "larger": "feature {feature}: {share:.0%} of customers have over {ratio:g} times the value before:"
    " another unit; " + _REMEDY,
    "smaller": "feature {feature}: {share:.0%} of customers have under 1/{ratio:g} of the value before:"
    " another unit; " + _REMEDY,
    "decreased": "feature {feature}: it only grew until now, but is smaller for {share:.1%} of customers; "
    + _REMEDY,
    "unchanged": "snapshot: all features of {share:.0%} of customers equal those of the snapshot before:"
    " a copy; check that records arrive, then run `churn features build`",
}


class Histories:
    """The history of each feature and kind of change."""

    def __init__(self, spec: FeaturesConfig, config: MonitoringConfig) -> None:
        self._config = config
        self._features = len(spec.features)
        self._windows = {feature.name for feature in spec.features if reads_age(feature)}
        self._of: dict[tuple[str, str], History] = {}

    def add(self, counts: pd.DataFrame) -> dict[tuple[str, str], Judged]:
        """Judge the counts of one more snapshot."""
        found = {}
        for feature, kind, hits, rows in counts[["subject", "kind", "hits", "rows"]].itertuples(index=False):
            if (feature, kind) not in self._of:
                self._of[feature, kind] = self.new(feature, kind)
            found[feature, kind] = self._of[feature, kind].add(hits, rows)
        return found

    def new(self, feature: str, kind: str) -> History:
        """An empty history of this feature and kind."""
        of = self._config.transitions
        margin = {
            "newly_null": of.newly_null,
            "newly_default": of.newly_default,
            # at most half of the customers may have another order of magnitude
            "larger": 0.5,
            "smaller": 0.5,
            "decreased": of.decreases,
            "unchanged": of.unchanged,
        }[kind]
        return History(
            # while a log is shorter than a window, few customers leave the window, and later many
            Margin(margin, least=ALMOST_ALL if kind == "newly_default" and feature in self._windows else 0.0),
            self._config.level(kind, self._features),
            self._config.min_rows,
            most_past=SHRINKS if kind == "decreased" else 1.0,
            length=self._config.history,
        )


def _of_numbers(
    old: NDArray[Any], new: NDArray[Any], default: object, ratio: float
) -> tuple[Kinds, NDArray[np.bool_]]:
    a, b = old.astype(np.float64), new.astype(np.float64)
    had, has = ~np.isnan(a), ~np.isnan(b)
    both = had & has
    kinds: Kinds = {"newly_null": (~has, had)}
    if isinstance(default, int | float):
        other = had & (a != default)
        kinds["newly_default"] = (b == default, other)
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.log(np.abs(b) / np.abs(a))
    comparable = both & (a != 0) & (b != 0)
    kinds["larger"] = (change > ratio, comparable)
    kinds["smaller"] = (change < -ratio, comparable)
    # a sum of equal amounts may differ in its last digit
    kinds["decreased"] = (b < a - 1e-9 * np.abs(a), both)
    return kinds, (a == b) | (~had & ~has)


def _of_words(old: NDArray[Any], new: NDArray[Any], default: object) -> tuple[Kinds, NDArray[np.bool_]]:
    had, has = ~pd.isna(old), ~pd.isna(new)
    kinds: Kinds = {"newly_null": (~has, had)}
    if default is not None:
        kinds["newly_default"] = (new == default, had & (old != default))
    return kinds, np.asarray((old == new) | (~had & ~has))
