"""What the monitor measured and found: the newest check, findings over time, and measurements over time."""

from collections.abc import Sequence

from monitoring.findings import Finding, Measurement, Monitored, Severity
from pipelines.report.blocks import (
    Block,
    Cell,
    Figure,
    Figures,
    More,
    Section,
    Table,
    Text,
    Tone,
    number,
    words,
)
from pipelines.report.facts import Facts
from pipelines.report.svg import Series, line_chart, numeric_axis, time_axis

COLUMNS = 12
"""Checks in the table of findings over time, the newest ones."""
CHARTS = 12
TONES: dict[Severity, Tone] = {Severity.PAGE: "bad", Severity.TICKET: "warn", Severity.DIGEST: "soft"}
FIRST = ("log_loss", "auroc", "ece", "calibration", "lift", "profit", "estimate", "early", "skew", "psi")
"""Measurements whose names begin so come first."""


def section(facts: Facts) -> Section:
    if not facts.monitored:
        return Section("checks", "Checks and drift", [Text("No check has been made yet: churn monitor.")])
    last = facts.monitored[-1]
    blocks: list[Block] = [_newest(last), *_over_time(facts.monitored), *_charts(facts.monitored)]
    rows = [
        [
            Cell(words(one.name)),
            Cell(one.subject),
            Cell(one.version or "–"),
            number(one.value, ".5g"),
            Cell("–" if one.low is None or one.high is None else f"{one.low:.4g} to {one.high:.4g}"),
            Cell(f"{one.rows:,}", is_number=True),
        ]
        for one in last.checked.measurements
    ]
    columns = ("measurement", "subject", "model", "value", "95 % interval", "rows")
    blocks.append(
        More(f"All {len(rows)} measurements of the newest check", [Table("Measurements", columns, rows)])
    )
    return Section("checks", "Checks and drift", blocks)


def _newest(run: Monitored) -> Block:
    window = f"{run.since:%Y-%m-%d} to {run.at:%Y-%m-%d}"
    if not run.checked.findings:
        return Text(f"The newest check, {window}, found nothing.", "good")
    rows = [
        [
            Cell(one.severity.value, TONES[one.severity]),
            Cell(one.cause.value),
            Cell(words(one.check)),
            Cell(one.subject),
            Cell(one.message + (f" Explained by {one.explained_by}." if one.explained_by else "")),
        ]
        for one in run.checked.findings
    ]
    return Table(f"Findings, {window}", ("severity", "cause", "check", "subject", "what"), rows)


def _over_time(runs: Sequence[Monitored]) -> list[Block]:
    """A row for each finding, a column for each of the newest checks."""
    shown = runs[-COLUMNS:]
    by_run = [{one.key: one for one in run.checked.findings} for run in shown]
    keys = sorted({key for found in by_run for key in found})
    if not keys or len(shown) < 2:
        return []
    rows = [[Cell(words(key)), *(_mark(found.get(key)) for found in by_run)] for key in keys]
    columns = ("finding", *(f"{run.at:%Y-%m-%d}" for run in shown))
    return [More(f"Findings over the last {len(shown)} checks", [Table("Findings over time", columns, rows)])]


def _mark(found: Finding | None) -> Cell:
    if found is None:
        return Cell("–", "soft")
    return Cell(found.severity.value, TONES[found.severity])


def _charts(runs: Sequence[Monitored]) -> list[Block]:
    """A chart for each measurement of everything together that changed over time."""
    history: dict[tuple[str, str], list[tuple[Monitored, Measurement]]] = {}
    for run in runs:
        for one in run.checked.measurements:
            if one.value == one.value:
                history.setdefault((one.name, one.subject), []).append((run, one))
    several = {key: found for key, found in history.items() if len({one.value for _, one in found}) > 1}
    ordered = sorted(several, key=lambda key: (key[1] != "all", _place(key[0]), key))
    figures = [_chart(name, subject, several[name, subject]) for name, subject in ordered[:CHARTS]]
    return [Figures(figures)] if figures else []


def _chart(name: str, subject: str, found: Sequence[tuple[Monitored, Measurement]]) -> Figure:
    points = [(run.at.timestamp(), one.value) for run, one in found]
    band = [
        (run.at.timestamp(), one.low, one.high)
        for run, one in found
        if one.low is not None and one.high is not None
    ]
    values = [value for _, value in points] + [edge for _, low, high in band for edge in (low, high)]
    of = "" if subject == "all" else f" of {subject}"
    title = f"{words(name)}{of}"
    newest = found[-1][1]
    description = f"{len(points)} checks; the newest value is {newest.value:.4g} from {newest.rows:,} rows."
    svg = line_chart(
        title,
        description,
        time_axis([run.at for run, _ in found]),
        numeric_axis("", values),
        [Series(name, points, "a", band, with_marks=True)],
    )
    return Figure(svg, f"{title.capitalize()}: {description}")


def _place(name: str) -> int:
    return next((place for place, first in enumerate(FIRST) if name.startswith(first)), len(FIRST))
