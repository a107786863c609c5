"""The timeline: models, canaries, checks and decisions over one axis of time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from itertools import pairwise

from monitoring.findings import Severity
from pipelines.report.blocks import Block, Cell, Figure, More, Section, Table, Text
from pipelines.report.facts import Facts
from pipelines.report.svg import wrap

LANES = {"models": "model", "canaries": "canary", "checks": "check", "decisions": "decision"}
"""The rows of the timeline, and what one event of each is called."""
WIDTH, LANE, LEFT, RIGHT, TOP = 1000, 46, 90, 26, 16
LONG_GAP = 0.25
"""A time without any event that is longer than this share of the whole is shown shortened, so that the
history of an old log and events of today fit on one axis."""
SHORTENED = 34
"""Width of a shortened gap."""


@dataclass(frozen=True)
class Mark:
    """An event of the timeline."""

    at: datetime
    lane: str
    shape: str
    """circle, square, diamond, cross or bar; the shape says what the tone says."""
    tone: str
    label: str
    until: datetime | None = None
    """The end of a bar."""


def section(facts: Facts) -> Section:
    marks = sorted(marks_of(facts), key=lambda mark: (mark.at, mark.lane, mark.label))
    if not marks:
        return Section("timeline", "Timeline", [Text("Nothing has happened yet.")])
    caption = (
        "Circle: a model was registered. Cross: a model or a candidate was refused. Bar: a canary. Square: a"
        " check, red where it pages, amber where it makes a ticket. Diamond: a decision about training, green"
        " where a model was trained."
    )
    rows = [
        [Cell(f"{mark.at:%Y-%m-%d %H:%M}"), Cell(LANES[mark.lane]), Cell(mark.label)]
        for mark in reversed(marks)
    ]
    blocks: list[Block] = [
        Figure(draw(marks), caption, is_wide=True),
        More(
            f"The same {len(marks)} events as a table",
            [Table("Events", ("when (UTC)", "what", "event"), rows)],
        ),
    ]
    return Section("timeline", "Timeline", blocks)


def marks_of(facts: Facts) -> list[Mark]:
    """All events, in no order."""
    marks = []
    for made in facts.registry:
        label = f"{made.action} of version {made.version}: {made.why}"
        shape = {"challenge": "circle", "promote": "square", "rollback": "cross"}[made.action]
        marks.append(Mark(datetime.fromisoformat(made.when), "models", shape, "a", label))
    for refused in facts.refused:
        label = f"the gates refused a model: {refused.failed or 'see its run'}"
        marks.append(Mark(refused.at, "models", "cross", "bad", label))
    for rollout, _ in facts.rollouts:
        good = {"promoted": "good", "rolled_back": "bad", "aborted": "bad"}.get(rollout.phase, "warn")
        label = f"canary of {rollout.candidate.version}: {rollout.phase.replace('_', ' ')}"
        marks.append(Mark(rollout.started, "canaries", "bar", good, label, rollout.ended))
    for run in facts.monitored:
        counted = {
            severity: sum(one.severity is severity and not one.explained_by for one in run.checked.findings)
            for severity in Severity
        }
        tone = "bad" if counted[Severity.PAGE] else "warn" if counted[Severity.TICKET] else "good"
        found = ", ".join(f"{severity.value} {count}" for severity, count in counted.items() if count)
        marks.append(Mark(run.at, "checks", "square", tone, f"check: {found or 'nothing found'}"))
    grades = facts.grades or {}
    for entry in facts.decisions:
        grade = grades.get(entry.number)
        graded = "" if grade is None else f"; later graded {grade.grade}"
        tone = {"yes": "good", "vetoed": "bad"}.get(entry.decision.action.value, "soft")
        label = f"decision {entry.number}: {entry.decision.action.value}{graded}. {entry.decision.reason}"
        marks.append(Mark(entry.at, "decisions", "diamond", tone, label))
    return marks


def draw(marks: Sequence[Mark]) -> str:
    """The SVG; each mark has a title with its event."""
    times = sorted({mark.at for mark in marks} | {mark.until for mark in marks if mark.until})
    scale = Scale(times)
    height = TOP + LANE * len(LANES) + 26
    parts = []
    for number, lane in enumerate(LANES):
        middle = TOP + LANE * number + LANE // 2
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{middle}" y2="{middle}"/>')
        parts.append(f'<text x="0" y="{middle + 4}">{lane}</text>')
    bottom = TOP + LANE * len(LANES)
    parts += [f'<line class="gap" x1="{x:g}" x2="{x:g}" y1="{TOP}" y2="{bottom}"/>' for x in scale.gaps]
    parts += [
        f'<text class="{anchor}" x="{scale(at):g}" y="{bottom + 18}">{at:%Y-%m-%d}</text>'
        for at, anchor in scale.labels()
    ]
    parts += [_drawn(mark, scale, TOP + LANE * list(LANES).index(mark.lane) + LANE // 2) for mark in marks]
    count = f"{len(marks)} events from {times[0]:%Y-%m-%d} to {times[-1]:%Y-%m-%d}"
    return wrap("Timeline of the loop", count, WIDTH, height, "".join(parts))


class Scale:
    """Time -> place. Long times without an event are shortened to SHORTENED."""

    def __init__(self, times: Sequence[datetime]) -> None:
        whole = max(times[-1] - times[0], timedelta(hours=1))
        self._parts: list[list[datetime]] = [[times[0]]]
        for before, after in pairwise(times):
            if after - before > whole * LONG_GAP:
                self._parts.append([])
            self._parts[-1].append(after)
        spans = [max(part[-1] - part[0], whole / 200) for part in self._parts]
        room = WIDTH - LEFT - RIGHT - SHORTENED * (len(spans) - 1)
        total = sum(spans, timedelta())
        # each part gets at least the width of its two dates
        shares = [max(span / total, 0.12) for span in spans]
        self._widths = [room * share / sum(shares) for share in shares]
        self._spans = spans
        starts = [LEFT + sum(self._widths[:n]) + SHORTENED * n for n in range(len(spans))]
        self._starts = starts
        self.gaps = [start - SHORTENED / 2 for start in starts[1:]]

    def __call__(self, at: datetime) -> float:
        number = max(n for n, part in enumerate(self._parts) if part[0] <= at)
        share = min((at - self._parts[number][0]) / self._spans[number], 1.0)
        return round(self._starts[number] + share * self._widths[number], 1)

    def labels(self) -> list[tuple[datetime, str]]:
        """The dates that are written below the axis, with the class of their anchor."""
        found = []
        for part, width in zip(self._parts, self._widths, strict=True):
            found.append((part[0], "start"))
            if part[0].date() != part[-1].date() and width > 170:
                found.append((part[-1], "end"))
        return found


def _drawn(mark: Mark, scale: Scale, y: int) -> str:
    x, css = scale(mark.at), f'class="mark {mark.tone}"'
    title = f"<title>{mark.at:%Y-%m-%d %H:%M}: {escape(mark.label)}</title>"
    if mark.shape == "bar":
        until = scale(mark.until) if mark.until else WIDTH - RIGHT
        return f'<rect {css} x="{x:g}" y="{y - 7}" width="{max(until - x, 5):g}" height="14">{title}</rect>'
    if mark.shape == "square":
        return f'<rect {css} x="{x - 6:g}" y="{y - 6}" width="12" height="12">{title}</rect>'
    if mark.shape == "circle":
        return f'<circle {css} cx="{x:g}" cy="{y}" r="6">{title}</circle>'
    if mark.shape == "diamond":
        return f'<path {css} d="M{x:g} {y - 8}l8 8-8 8-8-8z">{title}</path>'
    return f'<path {css} d="M{x - 6:g} {y - 6}l12 12m0-12l-12 12">{title}</path>'
