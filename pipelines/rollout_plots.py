"""Plots of a rollout: the canary's share over time, and both variants side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pipelines.plots import GREY, NETWORK, WARN, canvas, svg

CANARY = "#c98a04"
GOOD = "#0f7b57"
CLOSE_S = 0.012
"""Marks closer than this share of the whole time would overlap."""

Record = Mapping[str, Any]


def timeline(record: Record) -> str:
    """The canary's share over time, with a number at each decision, as in the table beside it."""
    figure, axes = canvas("Who answers: the canary's share", "seconds", "percent", width=10.6)
    decisions = record["decisions"]
    end = max(float(record["seconds"]), *(float(d["at_s"]) for d in decisions), 1e-3)
    times = [float(d["at_s"]) for d in decisions] + [end]
    weights = [float(d["weight"]) for d in decisions]
    axes.step(times, [*weights, weights[-1]], where="post", color=CANARY, linewidth=2)
    axes.fill_between(times, [*weights, weights[-1]], step="post", color=CANARY, alpha=0.13, linewidth=0)
    _shadow(axes, decisions, end)
    for number, x, y in _marks(decisions, end):
        colour = WARN if decisions[number - 1]["action"] in ("roll_back", "fall_back") else "#16202e"
        axes.plot([x], [y], marker="o", markersize=4, color=colour, linestyle="none", clip_on=False)
        axes.annotate(
            str(number), (x, y), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8,
            color=colour, annotation_clip=False,
        )  # fmt: skip
    won = record["phase"] == "promoted"
    axes.axvline(end, color=GOOD if won else WARN, linewidth=1, linestyle="--")
    axes.annotate(
        str(record["phase"]).replace("_", " "), (end, 50), xytext=(-5, 0), textcoords="offset points",
        rotation=90, ha="right", va="center", fontsize=9, color=GOOD if won else WARN,
    )  # fmt: skip
    axes.set(xlim=(0, end), ylim=(-4, 112), yticks=[0, 25, 50, 75, 100])
    return svg(figure)


def requests(record: Record) -> str:
    """The number of requests of each variant, for each weight."""
    return _pairs(record, "Requests by variant", "requests", lambda arm: arm["requests"])


def p99(record: Record) -> str:
    """99th percentile of each variant's latency, for each weight; empty with too few responses."""
    return _pairs(record, "Latency: 99th percentile", "ms", lambda arm: arm["p99_ms"])


def scores(record: Record) -> str:
    """The distribution of both variants' scores, as shares of their customers."""
    figure, axes = canvas("Scores of both variants", "predicted churn", "share of customers")
    held = record["scores"]
    edges = np.linspace(0, 1, len(held["stable"]) + 1)
    for name, colour, width in (("stable", NETWORK, 2.0), ("canary", CANARY, 1.2)):
        counts = np.asarray(held[name], dtype=np.float64)
        if counts.sum():
            label = f"{name}, {int(counts.sum()):,} customers"
            axes.stairs(counts / counts.sum(), edges, color=colour, linewidth=width, label=label)
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(fontsize=8)
    return svg(figure)


def _pairs(record: Record, title: str, unit: str, value: Any) -> str:
    figure, axes = canvas(title, "weight of the canary", unit)
    windows = record["windows"]
    places = np.arange(len(windows))
    for name, colour, shift in (("stable", NETWORK, -0.2), ("canary", CANARY, 0.2)):
        found = [value(window[name]) for window in windows]
        heights = [0.0 if one is None else float(one) for one in found]
        axes.bar(places + shift, heights, width=0.38, color=colour, label=name)
        for place, one in zip(places, found, strict=True):
            text = "–" if one is None else f"{one:,.0f}"
            axes.annotate(
                text, (place + shift, 0 if one is None else one), xytext=(0, 2), fontsize=7,
                textcoords="offset points", ha="center", color=GREY,
            )  # fmt: skip
    axes.set_xticks(places, [window["name"] for window in windows])
    axes.margins(y=0.15)
    if len(windows):
        axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.85, 1.0), ncols=2)
    return svg(figure)


def _shadow(axes: Axes, decisions: Sequence[Record], end: float) -> None:
    """Marks the time in which stable's requests were copied to the canary."""
    labelled = False
    for index, decision in enumerate(decisions):
        if decision["mirror"]:
            until = decisions[index + 1]["at_s"] if index + 1 < len(decisions) else end
            axes.axvspan(float(decision["at_s"]), float(until), color=GREY, alpha=0.15, linewidth=0)
            if not labelled:
                middle = (float(decision["at_s"]) + float(until)) / 2
                axes.annotate("shadow", (middle, 50), ha="center", fontsize=8, color=GREY)
                labelled = True


def _marks(decisions: Sequence[Record], end: float) -> list[tuple[int, float, float]]:
    """Number, time and height of each decision; of overlapping ones, only the last."""
    placed: list[tuple[int, float, float]] = []
    for number, decision in enumerate(decisions, 1):
        mark = (number, float(decision["at_s"]), float(decision["weight"]))
        if placed and mark[1] - placed[-1][1] < CLOSE_S * end and mark[2] == placed[-1][2]:
            placed.pop()
        placed.append(mark)
    return placed
