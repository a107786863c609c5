"""Draws the state of a rollout as tables that keep their place while they are updated."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

COLOURS = {"advance": "green", "roll_back": "red", "not_yet": "yellow"}
COUNTS = (
    ("requests", "requests"), ("errors", "errors"), ("slow", "slow"), ("p99_ms", "p99 ms"),
    ("customers", "scored"), ("missing", "missing features"), ("stale", "stale features"),
    ("degraded", "degraded"), ("high_risk", "high risk"), ("mean_score", "mean score"),
)  # fmt: skip


def picture(record: Mapping[str, Any]) -> RenderableType:
    """Draw phase, weights, counts of both variants, and each rule with its verdict and numbers.

    `record` is the output of `churn rollout status --json`.
    """
    parts: list[RenderableType] = [_head(record)]
    observation = record["look"]
    if observation is not None:
        parts += [_counts(observation), _rules(observation["verdicts"])]
        if observation["trouble"]:
            parts.append(Text(observation["trouble"], style="red"))
    return Group(*parts)


def _head(record: Mapping[str, Any]) -> Table:
    observation, over = record["look"], record["ended"] is not None
    target = None if observation is None else observation["target"]
    plan = "  ".join(_stage(record, number) for number in range(len(record["stages"])))
    phase = record["phase"].replace("_", " ") + (", paused" if record["paused"] else "")
    phase += ", [red]stuck[/]" if record["stuck"] else ""
    facts = {
        "rollout": f"{record['id']}, by {escape(record['by'])}: {escape(record['reason'])}",
        "version": f"{record['version']} after {record['previous'] or 'nothing'}",
        "phase": f"[bold]{phase}[/]",
        "plan": plan,
        "traffic": "–" if target is None else f"{target['weight']} % to the canary{_state(target)}",
        "why" if over else "waits for": escape(
            record["outcome"] if over else (observation or {}).get("reason", "–")
        ),
        "controller": record["controller"] or ("–" if over else "[red]none[/]"),
    }
    for projection in record["projections"]:
        detail = escape(projection["detail"])
        facts[projection["name"]] = detail if projection["agrees"] else f"[red]{detail}[/]"
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, fact in facts.items():
        grid.add_row(name, fact)
    return grid


def _stage(record: Mapping[str, Any], number: int) -> str:
    stage = record["stages"][number]
    name = "shadow" if stage["mirror"] else f"{stage['weight']} %"
    if record["phase"] == "stage" and number == record["stage"]:
        return f"[bold reverse] {name} [/]"
    passed = record["phase"] in ("promoting", "watching", "promoted") or (
        record["phase"] == "stage" and number < record["stage"]
    )
    return f"[green]{name} ✓[/]" if passed else f"[dim]{name}[/]"


def _state(target: Mapping[str, Any]) -> str:
    mirrored = ", mirrored" if target["mirror"] else ""
    if target["canary"] is None:
        return mirrored + ", no canary"
    return mirrored if target["ready"] else f"{mirrored}, [red]not ready: {escape(target['detail'])}[/]"


def _counts(observation: Mapping[str, Any]) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="dim", title_justify="left")
    grid.add_column("in this window")
    for name in ("stable", "canary"):
        grid.add_column(name, justify="right")
    for key, name in COUNTS:
        values = [(observation[variant] or {}).get(key) for variant in ("stable", "canary")]
        if any(value is not None for value in values):
            grid.add_row(name, *map(_number, values))
    return grid


def _rules(verdicts: Sequence[Mapping[str, Any]]) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("rule", "verdict", "why", "numbers"):
        grid.add_column(name, overflow="fold", no_wrap=name in ("rule", "verdict"))
    for verdict in verdicts:
        answer = verdict["answer"]
        numbers = "  ".join(f"{name} {_number(value)}" for name, value in verdict["numbers"].items())
        colour = COLOURS.get(answer, "white")
        grid.add_row(
            verdict["rule"],
            f"[{colour}]{answer.replace('_', ' ')}[/]",
            escape(verdict["reason"]),
            escape(numbers),
        )
    return grid


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.4g}"
