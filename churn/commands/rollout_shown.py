"""How a rollout looks: as a record for machines, as a table that stays in its place for people."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rollout.database.projections import Projection
    from rollout.state import Event, Rollout

COLOURS = {"advance": "green", "roll_back": "red", "not_yet": "yellow"}
ARM = (
    ("requests", "requests"), ("errors", "errors"), ("slow", "slow"), ("p99_ms", "p99 ms"),
    ("customers", "scored"), ("missing", "missing features"), ("stale", "stale features"),
    ("degraded", "degraded"), ("high_risk", "high risk"), ("mean_score", "mean score"),
)  # fmt: skip


def status_record(
    rollout: "Rollout", look: Mapping[str, Any] | None, controller: str | None
) -> dict[str, Any]:
    """`look` is what its controller saw last; None before the first look."""
    from rollout.records import rollout_record

    return rollout_record(rollout) | {"controller": controller, "look": None if look is None else dict(look)}


def projection_record(projection: "Projection") -> dict[str, Any]:
    """How registry or target stand beside what is recorded as stable."""
    return {
        "name": projection.name,
        "agrees": projection.agrees,
        "detail": projection.detail,
        "since": projection.since.isoformat(),
    }


def picture(record: Mapping[str, Any]) -> RenderableType:
    """Phase, weights, requests of each variant, each rule with its verdict and numbers."""
    parts: list[RenderableType] = [_head(record)]
    look = record["look"]
    if look is not None:
        parts += [_arms(look), _rules(look["verdicts"])]
        if look["trouble"]:
            parts.append(Text(look["trouble"], style="red"))
    return Group(*parts)


def history_rows(events: Sequence["Event"]) -> list[tuple[Any, ...]]:
    return [
        (
            event.sequence,
            f"{event.at:%Y-%m-%d %H:%M:%S}",
            event.action.replace("_", " "),
            "shadow" if event.mirror else f"{event.weight} %",
            event.who,
            escape(event.reason),
            "" if event.done else "not confirmed",
        )
        for event in events
    ]


def _head(record: Mapping[str, Any]) -> Table:
    look, over = record["look"], record["ended"] is not None
    target = None if look is None else look["target"]
    plan = "  ".join(_stage(record, number) for number in range(len(record["stages"])))
    phase = record["phase"].replace("_", " ") + (", paused" if record["paused"] else "")
    phase += ", [red]stuck[/]" if record["stuck"] else ""
    facts = {
        "rollout": f"{record['id']}, by {escape(record['by'])}: {escape(record['reason'])}",
        "version": f"{record['version']} after {record['previous'] or 'nothing'}",
        "phase": f"[bold]{phase}[/]",
        "plan": plan,
        "traffic": "–" if target is None else f"{target['weight']} % to the canary{_extra(target)}",
        "why" if over else "waits for": escape(
            record["outcome"] if over else (look or {}).get("reason", "–")
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


def _extra(target: Mapping[str, Any]) -> str:
    shadow = ", mirrored" if target["mirror"] else ""
    if target["canary"] is None:
        return shadow + ", no canary"
    return shadow if target["ready"] else f"{shadow}, [red]not ready: {escape(target['detail'])}[/]"


def _arms(look: Mapping[str, Any]) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="dim", title_justify="left")
    grid.add_column("in this window")
    for name in ("stable", "canary"):
        grid.add_column(name, justify="right")
    for key, name in ARM:
        values = [(look[arm] or {}).get(key) for arm in ("stable", "canary")]
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
