"""Charts as inline SVG. Colours are classes of the page's style sheet, since a strict CSP forbids styles in
elements. Texts are texts, and each chart has a title and a description for screen readers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from math import ceil, floor

WIDTH, HEIGHT = 340, 190
"""Of a small chart: about the width of a phone, so that its texts are not scaled down there."""
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 14, 34
"""Margins of a small chart, for the labels of its axes."""
TICKS = 4


@dataclass(frozen=True)
class Series:
    """Points of a line, and optionally an interval around each."""

    name: str
    points: Sequence[tuple[float, float]]
    tone: str = "a"
    """A class of the style sheet: a, b, c or soft."""
    band: Sequence[tuple[float, float, float]] = ()
    """x, low, high."""
    with_marks: bool = False


@dataclass(frozen=True)
class Axis:
    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]


def numeric_axis(label: str, values: Sequence[float], form: str = "g") -> Axis:
    """An axis that contains all values, with round ticks."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high == low:
        low, high = low - abs(low or 1) * 0.1, high + abs(high or 1) * 0.1
    step = _round_step((high - low) / TICKS)
    first, last = floor(low / step), ceil(high / step)
    ticks = [step * place for place in range(first, last + 1)]
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    return Axis(label, low, high, [(tick, format(round(tick, 10), form)) for tick in ticks])


def time_axis(moments: Sequence[datetime]) -> Axis:
    """An axis of seconds since 1970, labelled with the first and the last date, and one between them."""
    low, high = min(moments).timestamp(), max(moments).timestamp()
    if high == low:
        low, high = low - 86_400, high + 86_400
    places = [low, (low + high) / 2, high]
    zone = moments[0].tzinfo
    return Axis("", low, high, [(at, f"{datetime.fromtimestamp(at, zone):%Y-%m-%d}") for at in places])


def line_chart(title: str, description: str, x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """Lines over a common axis, with a legend when there are several."""
    parts = [_grid(x, y)]
    for one in series:
        if one.band:
            edge = [(at, high) for at, _, high in one.band] + [(at, low) for at, low, _ in reversed(one.band)]
            parts.append(f'<polygon class="band {one.tone}" points="{_points(edge, x, y)}"/>')
        parts.append(f'<polyline class="line {one.tone}" points="{_points(one.points, x, y)}"/>')
        if one.with_marks:
            parts += [
                f'<circle class="mark {one.tone}" cx="{_x(at, x)}" cy="{_y(value, y)}" r="3"/>'
                for at, value in one.points
            ]
    if len(series) > 1:
        for index, one in enumerate(series):
            at = LEFT + index * 100
            parts.append(f'<rect class="key {one.tone}" x="{at}" y="2" width="10" height="4"/>')
            parts.append(f'<text x="{at + 14}" y="8">{escape(one.name)}</text>')
    return wrap(title, description, WIDTH, HEIGHT, "".join(parts))


def wrap(title: str, description: str, width: int, height: int, content: str) -> str:
    """The element around a chart."""
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}. {escape(description)}">'
        f"<title>{escape(title)}</title>{content}</svg>"
    )


def _grid(x: Axis, y: Axis) -> str:
    parts = []
    for at, text in y.ticks:
        place = _y(at, y)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place}" y2="{place}"/>')
        parts.append(f'<text class="end" x="{LEFT - 5}" y="{place + 4:g}">{escape(text)}</text>')
    for index, (at, text) in enumerate(x.ticks):
        anchor = "" if 0 < index < len(x.ticks) - 1 else ("start" if index == 0 else "end")
        parts.append(
            f'<text class="{anchor or "middle"}" x="{_x(at, x)}" y="{HEIGHT - 18}">{escape(text)}</text>'
        )
    if x.label:
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text class="middle soft" x="{middle:g}" y="{HEIGHT - 4}">{escape(x.label)}</text>')
    return "".join(parts)


def _points(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    return " ".join(f"{_x(at, x)},{_y(value, y)}" for at, value in points)


def _x(value: float, axis: Axis) -> float:
    share = (value - axis.low) / (axis.high - axis.low)
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _y(value: float, axis: Axis) -> float:
    share = (value - axis.low) / (axis.high - axis.low)
    return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def _round_step(step: float) -> float:
    """The next larger of 1, 2, 5 times a power of ten."""
    power = 10.0 ** int(f"{step:e}".partition("e")[2])
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step)
