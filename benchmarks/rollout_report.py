"""What benchmarks/rollout.py found, as tables, JSON, Markdown and a plot."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.moments import SHARE_OF

Array = NDArray[np.float64]

OURS = "error rule (ours)"
CROWD = "identical; the same customers in every stage (rules about customers)"
out = Console(width=max(Console().width, 170))


@dataclass(frozen=True)
class Row:
    """One rule in one plan."""

    rule: str
    setting: str
    false_alarms: dict[str, float]
    caught: float
    median: float
    took: Array
    """[rollouts] canary requests until the rollback; inf: none."""

    def record(self) -> dict[str, Any]:
        return asdict(self) | {"took": self.took.tolist()}

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Row":
        return cls(**record | {"took": np.array(record["took"])})


@dataclass(frozen=True)
class Scenario:
    """Seconds (or looks) until each rule rolls back, in every rollout."""

    name: str
    took: dict[str, Array]

    @property
    def first(self) -> Array:
        return np.asarray(np.min([t for name, t in self.took.items() if name not in SHARE_OF], axis=0))

    @property
    def rolled_back(self) -> float:
        return share(self.first)

    @property
    def by_request(self) -> dict[str, float]:
        """Of rules that count requests one by one."""
        return {name: share(took) for name, took in self.took.items() if name in SHARE_OF}

    def record(self) -> dict[str, Any]:
        median = float(np.median(self.first))
        return {
            "scenario": self.name,
            "rollouts": len(self.first),
            "rolled_back": self.rolled_back,
            "by_rule": {name: share(took) for name, took in self.took.items() if name not in SHARE_OF},
            "median_s": median if np.isfinite(median) else None,
            "by_request": self.by_request,
        }


def share(took: Array) -> float:
    """Of rollouts that ended in a rollback."""
    return float(np.isfinite(took).mean())


ALARMS = ("alarms at 0.1 %", "0.5 %", "1 %", "2 %", "5 %")
COLUMNS = ("rule", "setting", *ALARMS, "caught", "median", "ours / it")


def _cells(row: Row, ours: float) -> tuple[str, ...]:
    rates = (f"{alarms:.2%}" for alarms in row.false_alarms.values())
    ratio = f"{ours / row.median:.2f}" if np.isfinite(row.median) else ""
    median = f"{row.median:.0f}" if np.isfinite(row.median) else "never"
    return (row.rule, row.setting, *rates, f"{row.caught:.2%}", median, ratio)


def show(title: str, rows: Sequence[Row]) -> None:
    table = Table(*COLUMNS, title=title)
    for row in rows:
        table.add_row(*_cells(row, rows[0].median), style="bold" if row.rule == OURS else None)
    out.print(table)


def show_scenarios(scenarios: Sequence[Scenario]) -> None:
    columns = ("scenario", "rolled back", "by which rule", "median s", "counted by request")
    table = Table(*columns, title="stages and watch")
    for scenario in scenarios:
        table.add_row(*_scenario_cells(scenario))
    out.print(table)


def _scenario_cells(scenario: Scenario) -> tuple[str, ...]:
    record = scenario.record()
    each = ", ".join(f"{name} {part:.2%}" for name, part in record["by_rule"].items())
    before = ", ".join(f"{name.split()[0]} {part:.2%}" for name, part in scenario.by_request.items())
    median = record["median_s"]
    return (
        scenario.name,
        f"{scenario.rolled_back:.2%}",
        each,
        "" if median is None or scenario.name == CROWD else f"{median:.0f}",
        before,
    )


def save(scenarios: Sequence[Scenario], rows: dict[str, list[Row]], folder: Path) -> None:
    """`rows`: of each plan that was judged, by its title."""
    folder.mkdir(parents=True, exist_ok=True)
    records = {
        plan: [
            {key: value for key, value in asdict(row).items() if key != "took"}
            | {"rollouts": len(row.took), "median": row.median if np.isfinite(row.median) else None}
            for row in found
        ]
        for plan, found in rows.items()
    }
    (folder / "rollout.json").write_text(
        json.dumps({"in_time": [one.record() for one in scenarios], "by_request": records}, indent=1)
    )
    (folder / "rollout.md").write_text("\n".join([*_markdown(scenarios, rows), ""]))
    if rows:
        plot(rows, folder / "rollout.png")


def _markdown(scenarios: Sequence[Scenario], rows: dict[str, list[Row]]) -> list[str]:
    lines = [
        "## Stages and watch",
        "",
        "| scenario | rolled back | by rule | median s | counted by request |",
    ]
    lines += ["|---|---|---|---|---|", *("| " + " | ".join(_scenario_cells(one)) + " |" for one in scenarios)]
    for plan, found in rows.items():
        lines += ["", f"## {plan}", "", "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
        lines += ["| " + " | ".join(_cells(row, found[0].median)) + " |" for row in found]
    return lines


def plot(rows: dict[str, list[Row]], file: Path) -> None:
    """How soon harm is caught, and what becomes of the false alarms where the error rate is another."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(19, 5.5))
    for axis, (plan, found) in zip(axes, rows.items(), strict=False):
        for row in _drawn(found):
            took = np.sort(row.took)
            axis.step(took, np.arange(1, len(took) + 1) / len(took), where="post", **_style(row))
        axis.set(title=plan, xlabel="canary requests", ylabel="rolled back")
        axis.set_xlim(0, 2500)
    axes[0].legend(fontsize=7, loc="lower right")
    for row in _drawn(next(iter(rows.values()))):
        if row.rule != "Wald's test":
            rates = [float(rate) for rate in row.false_alarms]
            shares = [max(alarms, 3e-5) for alarms in row.false_alarms.values()]
            axes[2].plot(rates, shares, marker="o", **_style(row))
    axes[2].axhline(0.01, color="k", linewidth=0.8, linestyle=":")
    axes[2].set(xscale="log", yscale="log", xlabel="error rate of both variants", ylabel="rolled back",
                title="identical canary (dotted: alpha)")  # fmt: skip
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


COLOURS = {
    OURS: "C3",
    "Wald's test": "0.6",
    "Flagger-like: own rate": "C0",
    "Argo-like: above stable": "C2",
    "mSPRT": "C1",
    "Kayenta": "C4",
}
LINES = {"1 %": "-", "0.5 to 2 %": "--", "0.1 to 5 %": ":"}


def _drawn(rows: Sequence[Row]) -> list[Row]:
    """Without the rules by the clock and the variants of ours, that a plot has room for the rest."""
    return [row for row in rows if "in all" not in row.setting and row.rule.split(", ")[0] in COLOURS
            and not row.rule.startswith(f"{OURS},")]  # fmt: skip


def _style(row: Row) -> dict[str, str | float]:
    name, _, rates = row.rule.partition(", tuned to ")
    return {
        "color": COLOURS[name.split(", ")[0]],
        "linestyle": LINES.get(rates, "-." if ", as " in name else "-"),
        "label": row.rule,
        "linewidth": 2.2 if row.rule == OURS else 1.3,
    }
