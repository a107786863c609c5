"""Rows of a log that arrived in each step: volume, amounts, duplicates and hours of the day.

A step is as long as the window of a check, and the last one ends with it. Customers are the units: each has
in each step at most one typical amount and one hour, so that a customer with many rows decides no more than
another. Volume is the share of returning customers, because how many new ones come depends on campaigns.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monitoring.checks.shares import DEVIATIONS, LEAST_PAST, History, Judged, Margin, Properties
from monitoring.config import MonitoringConfig
from monitoring.findings import Cause, Checked, Finding, Measurement, Severity

SHIFTS = tuple(range(2, 23))
"""Hours by which a profile may be moved. A shift by one hour is not tested: daylight saving time makes it."""

RECENT = 6
"""Steps that the volume is compared with: it follows the age of the log, so that older steps mislead."""

EVERYTHING = "all"

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Arrivals:
    """The rows of a log, by step and customer."""

    activity: pd.DataFrame
    """A row for each customer with rows in a step: `step` (0 is the oldest), `user` (row of `customers`),
    `amount` (median of the customer in the step; NaN without amounts), `hour` (of the first row, 0 to 23),
    `repeats` (rows that repeat another one in every column)."""
    customers: pd.DataFrame
    """A row for each customer: `first` (step of the first purchase, -1 before the oldest step) and a column
    for each segment."""
    steps: int

    def segments(self) -> Sequence[str]:
        """The names of the segment columns."""
        return [name for name in self.customers.columns if name != "first"]


EMPTY = pd.DataFrame(columns=["step", "subject", "kind", "hits", "rows"])
"""The counts where the records are no log."""


def follow(arrivals: Arrivals, config: MonitoringConfig) -> pd.DataFrame:
    """The counts of all steps: `step`, `subject`, `kind`, `hits`, `rows`."""
    counts = [properties.counts().assign(step=step) for step, properties in properties_of(arrivals, config)]
    return pd.concat(counts, ignore_index=True)


def properties_of(arrivals: Arrivals, config: MonitoringConfig) -> Iterator[tuple[int, Properties]]:
    """The properties of all customers (rows of `arrivals.customers`) in each step.

    What is compared with the past (amounts and hours) uses earlier steps only.
    """
    customers = arrivals.customers
    first = customers["first"].to_numpy()
    groups = {EVERYTHING: np.ones(len(customers), dtype=bool), **_segments(arrivals)}
    medians: dict[str, list[float]] = {name: [] for name in groups}
    profile = np.zeros(24)
    by_step = dict(iter(arrivals.activity.groupby("step")))
    for step in range(arrivals.steps):
        rows = by_step.get(step, arrivals.activity.iloc[:0])
        user = rows["user"].to_numpy()
        active = _spread(user, np.ones(len(user), dtype=bool), len(customers))
        amount = np.full(len(customers), np.nan)
        amount[user] = rows["amount"].to_numpy()
        columns: dict[tuple[str, str], tuple[Flags, Flags]] = {}
        for name, members in groups.items():
            known = members & (first < step)
            columns[name, "more"] = active, known
            columns[name, "fewer"] = ~active, known
            there = members & active & ~np.isnan(amount)
            if (limits := _limits(medians[name], config.arrivals.amount_ratio)) is not None:
                columns[name, "amounts_larger"] = amount > limits[1], there
                columns[name, "amounts_smaller"] = amount < limits[0], there
            medians[name].append(float(np.median(amount[there])) if there.any() else np.nan)
        repeats = _spread(user, rows["repeats"].to_numpy() > 0, len(customers))
        columns[EVERYTHING, "duplicates"] = repeats, active
        hours = rows["hour"].to_numpy()
        if profile.sum():
            for shift in SHIFTS:
                likelier = np.roll(profile, shift) > profile
                columns[f"{shift:+d} h", "hours"] = _spread(user, likelier[hours], len(customers)), active
        profile = profile + np.bincount(hours, minlength=24)
        yield step, Properties.of(columns, len(customers))


class Histories:
    """The history of each subject and kind."""

    def __init__(self, subjects: int, config: MonitoringConfig) -> None:
        """`subjects`: `all`, and each value of the segments."""
        self._config = config
        self._subjects = subjects
        self._of: dict[tuple[str, str], History] = {}

    def add(self, counts: pd.DataFrame) -> dict[tuple[str, str], Judged]:
        """Judge the counts of one more step."""
        found = {}
        for subject, kind, hits, rows in counts[["subject", "kind", "hits", "rows"]].itertuples(index=False):
            if (subject, kind) not in self._of:
                self._of[subject, kind] = self.new(kind)
            found[subject, kind] = self._of[subject, kind].add(hits, rows)
        return found

    def new(self, kind: str) -> History:
        """An empty history of this kind."""
        length = RECENT if kind in ("more", "fewer") else self._config.history
        level = self._config.level(kind, len(SHIFTS) if kind == "hours" else self._subjects)
        return History(margin_of(kind, self._config), level, self._config.min_rows, length=length)


def margin_of(kind: str, config: MonitoringConfig) -> Margin:
    """The margin of the null hypothesis of this kind."""
    of = config.arrivals
    return {
        "more": Margin(of.volume_ratio, is_ratio=True),
        "fewer": Margin(of.volume_ratio, is_ratio=True, of_rest=True),
        "amounts_larger": Margin(of.amount_share),
        "amounts_smaller": Margin(of.amount_share),
        "duplicates": Margin(of.duplicates),
        "hours": Margin(of.hours),
    }[kind]


def check(counts: pd.DataFrame, config: MonitoringConfig) -> Checked:
    """Findings of the newest step. `counts` is from `follow`."""
    findings: list[Finding] = []
    measured: list[Measurement] = []
    subjects = int(counts.loc[counts["kind"] == "more", "subject"].nunique())
    histories, newest = Histories(subjects, config), dict[tuple[str, str], Judged]()
    for _, found in counts.groupby("step", sort=True):
        newest = histories.add(found)
    slips = {subject: judged for (subject, kind), judged in newest.items() if kind == "hours"}
    for (subject, kind), judged in newest.items():
        if kind == "hours":
            continue
        measured.append(Measurement(f"arrivals_{kind}_share", judged.share, judged.rows, subject))
        if judged.is_alarm:
            findings.append(_finding(kind, subject, judged, config))
    measured.append(Measurement("arrivals_hours_share", _largest(slips), _rows(slips)))
    alarms = {subject: judged for subject, judged in slips.items() if judged.is_alarm}
    if alarms:
        subject = max(alarms, key=lambda one: alarms[one].share - alarms[one].bound)
        findings.append(_finding("hours", subject, alarms[subject], config))
    return Checked(measured, findings)


CHECKS = {
    "more": "volume",
    "fewer": "customers_missing",
    "amounts_larger": "amounts",
    "amounts_smaller": "amounts",
    "duplicates": "duplicates",
    "hours": "time_zone",
}
_REMEDY = "compare the delivery with its source before it is used"
MESSAGES = {
    "more": "records ({subject}): {share:.1%} of known customers have new rows, more than {bound:.1%}; "
    + _REMEDY,
    "fewer": "records ({subject}): {share:.1%} of known customers have no new rows, more than {bound:.1%}; "
    + _REMEDY,
    "amounts_larger": "amount ({subject}): over {ratio:g} times the typical one for {share:.0%} of customers,"
    " more than {bound:.0%}: another unit or currency; " + _REMEDY,
    "amounts_smaller": "amount ({subject}): under 1/{ratio:g} of the typical one for {share:.0%} of"
    " customers, more than {bound:.0%}: another unit or currency; " + _REMEDY,
    "duplicates": "records: {share:.1%} of customers have rows that repeat another one, more than"
    " {bound:.1%}; check for a delivery that was merged twice",
    "hours": "timestamp: {share:.0%} of customers buy at hours that fit a clock moved by {subject}, more than"
    " {bound:.0%}; check data.source.timezone",
}


def _finding(kind: str, subject: str, judged: Judged, config: MonitoringConfig) -> Finding:
    text = MESSAGES[kind].format(
        subject=subject, share=judged.share, bound=judged.bound, ratio=config.arrivals.amount_ratio
    )
    numbers = {"share": judged.share, "bound": judged.bound, "customers": float(judged.rows)}
    where = "timestamp" if kind == "hours" else "amount" if kind.startswith("amounts") else "records"
    whole = where if subject == EVERYTHING or kind == "hours" else subject
    cause = Cause.STALENESS if kind == "fewer" else Cause.CORRUPTION
    return Finding(CHECKS[kind], whole, cause, Severity.PAGE, text, numbers)


def _segments(arrivals: Arrivals) -> dict[str, Flags]:
    """The members of each value of each segment."""
    return {
        f"{name}={value}": (arrivals.customers[name] == value).to_numpy()
        for name in arrivals.segments()
        for value in sorted(arrivals.customers[name].dropna().unique())
    }


def _limits(medians: Sequence[float], ratio: float) -> tuple[float, float] | None:
    """Amounts below the first and above the second are suspicious; None without enough past steps."""
    past = np.array([median for median in medians if median > 0])
    if len(past) < LEAST_PAST:
        return None
    logs = np.log(past)
    center = float(np.median(logs))
    width = max(np.log(ratio), DEVIATIONS * float(np.median(np.abs(logs - center))))
    return float(np.exp(center - width)), float(np.exp(center + width))


def _spread(user: NDArray[Any], values: Flags, customers: int) -> Flags:
    """The values of the active customers as flags of all customers."""
    flags = np.zeros(customers, dtype=bool)
    flags[user] = values
    return flags


def _largest(slips: dict[str, Judged]) -> float:
    shares = [judged.share for judged in slips.values()]
    return max(shares) if shares else float("nan")


def _rows(slips: dict[str, Judged]) -> int:
    return max((judged.rows for judged in slips.values()), default=0)
