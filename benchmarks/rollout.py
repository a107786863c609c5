"""How many good canaries are taken back, and how soon a bad one is: our rules beside threshold rules.

    python -m benchmarks.rollout [--quick] [--rollouts 10000] [--out var/bench/rollout]

Simulated rollouts of configs/rollout.yaml, the watch after promotion included, with fixed seeds, on one core.
First, in time (benchmarks/moments.py): identical canaries among customers who fail and ask again and on a
machine that stalls; canaries that err, or are slower. Beside them what the rules found when they counted
requests. Second (benchmarks/crowd.py): the rules about customers, with the same customers in every stage.
Third, request by request: a canary that errs on 3 % of requests beside a stable that errs on 1 %: the share
that is caught within the plan, and the canary's requests until then, mirrored ones included. The rivals check
a rate every so many requests or minutes (benchmarks/threshold_rules.py); each is the best of some two hundred
settings, tuned on other rollouts than it is shown on: to the error rate as it will be, or to hold its false
alarms over a range of rates, as ours do untuned. Wald's test, which knows both rates, is the limit of any
rule. Results: tables, and rollout.json, rollout.md and rollout.png in --out.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks import crowd, moments
from benchmarks.moments import SHARE_OF, World
from benchmarks.rollouts import error_rule_alone
from benchmarks.threshold_rules import (
    CLOCK,
    INTERVALS,
    MINUTES,
    UNIT,
    Tuned,
    checked,
    simulated,
    stopped,
    tuned,
)
from churn.settings import load_settings
from rollout.config import RolloutConfig

ROOT = Path(__file__).resolve().parent.parent
Array = NDArray[np.float64]
HARM, USUAL = 0.03, 0.01
OTHERS = (0.001, 0.005, 0.02, 0.05)
"""Error rates of both variants that a rule tuned to 1 % may meet."""
RANGES = {"1 %": (USUAL,), "0.5 to 2 %": (0.005, 0.01, 0.02), "0.1 to 5 %": (0.001, 0.01, 0.05)}
CHUNK = 1000
"""Rollouts in memory at a time."""
ASK_AGAIN, STALLS = {"broken": 0.01}, {"stalls_per_s": 0.2}
WORLDS = {
    "identical": World(),
    "identical; one customer in a hundred fails always, and asks again each second": World(**ASK_AGAIN),
    "identical; either process stalls every 5 s, the machine too, for .25 s": World(**STALLS),
    "identical; both": World(**ASK_AGAIN, **STALLS),
    "errors of 3 % instead of 1 %": World(canary_error_rate=0.03),
    "errors of 3 % instead of 1 %; asking again, and stalls": World(
        canary_error_rate=0.03, **ASK_AGAIN, **STALLS
    ),
    "every request, and so the p99, twice as slow": World(canary_times=2.0),
    "every request twice as slow, and stalls: the p99 is theirs, nearly the same": World(
        canary_times=2.0, **STALLS
    ),
    "a median of 20 ms instead of 10, the same p99 of 40": World(canary_median_ms=20.0),
}
CROWD = "identical; the same customers in every stage (rules about customers)"
OURS = "error rule (ours)"
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
        return _share(self.first)

    @property
    def by_request(self) -> dict[str, float]:
        """Of rules that count requests one by one."""
        return {name: _share(took) for name, took in self.took.items() if name in SHARE_OF}

    def record(self) -> dict[str, Any]:
        median = float(np.median(self.first))
        return {
            "scenario": self.name,
            "rolled_back": self.rolled_back,
            "by_rule": {name: _share(took) for name, took in self.took.items() if name not in SHARE_OF},
            "median_s": median if np.isfinite(median) else None,
            "by_request": self.by_request,
        }


def main() -> None:
    options = parse_arguments()
    plan, count = load_settings().rollout, options.rollouts
    # every rule has something to judge, and so a part of alpha
    config = plan.model_copy(update={"labels": Path("labels.parquet"), "segments": ("segment",)})
    scenarios = in_time(config, count)
    scenarios.append(Scenario(CROWD, _together(crowd.judged, config, count)))
    show_scenarios(scenarios)
    without = config.model_copy(update={"stages": config.stages[1:]})
    plans = {"the plan": config, "the plan without its shadow window": without}
    rows = {name: compared(plan, count) for name, plan in plans.items()}
    for name, found in rows.items():
        show(name, found)
    save(scenarios, rows, options.out)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rollouts", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="1,000 rollouts")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench" / "rollout")
    options = parser.parse_args()
    if options.quick:
        options.rollouts = 1000
    return options


def in_time(config: RolloutConfig, rollouts: int) -> list[Scenario]:
    """Each world, in parts that fit into memory."""
    found = []
    for name, world in WORLDS.items():
        found.append(Scenario(name, _together(moments.judged, config, rollouts, world)))
        each = ", ".join(f"{rule} {_share(one):.2%}" for rule, one in found[-1].took.items())
        out.print(f"[dim]{name}: {each}")
    return found


def _together(
    judged: Callable[..., dict[str, Array]], config: RolloutConfig, rollouts: int, *args: Any
) -> dict[str, Array]:
    parts = [
        judged(config, *args, min(CHUNK, rollouts - start), seed=1000 + start)
        for start in range(0, rollouts, CHUNK)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def compared(config: RolloutConfig, rollouts: int) -> list[Row]:
    def alone(rates: tuple[float, float], seed: int) -> Array:
        return error_rule_alone(config, rates, config.alpha, 20, rollouts, seed)

    def among(rates: tuple[float, float], seed: int) -> Array:
        share = config.alpha * 4 / 11
        return error_rule_alone(config, rates, share, 20, rollouts, seed)

    rows = [
        _row(OURS, f"alpha {config.alpha:g}, looks every 20", alone),
        _row("error rule (ours), as one of seven", "4/11 of alpha", among),
        _row("Wald's test", "told both rates", lambda rates, seed: wald(config, rates, rollouts, seed)),
    ]
    for against_stable in (False, True):
        for by_clock in (False, True):
            rows += threshold_rows(config, rollouts, against_stable, by_clock)
    return rows


def _row(rule: str, setting: str, run: Callable[[tuple[float, float], int], Array]) -> Row:
    """Tried on seeds that tuned nothing."""
    quiet = {f"{rate:g}": _share(run((rate, rate), 31)) for rate in sorted((USUAL, *OTHERS))}
    took = run((HARM, USUAL), 32)
    out.print(f"[dim]{rule}: {setting}: median {np.median(took):g}")
    return Row(rule, setting, quiet, _share(took), float(np.median(took)), took)


def threshold_rows(config: RolloutConfig, rollouts: int, against_stable: bool, by_clock: bool) -> list[Row]:
    name = "Argo-like: above stable" if against_stable else "Flagger-like: own rate"
    sizes, unit = (MINUTES, CLOCK) if by_clock else (INTERVALS, UNIT)
    harm = simulated(config.stages, (HARM, USUAL), by_clock, rollouts, 21)
    rows = []
    for told, rates in RANGES.items():
        quiet = [simulated(config.stages, (rate, rate), by_clock, rollouts, 22) for rate in rates]
        rule = tuned(quiet, harm, sizes, against_stable, config.alpha)

        def run(rates: tuple[float, float], seed: int, rule: Tuned = rule) -> Array:
            units = simulated(config.stages, rates, by_clock, rollouts, seed)
            seen = checked(units, rule.size, against_stable)
            return stopped(seen, rule.failures, rule.in_a_row, rule.bound)

        asked = "requests in all" if by_clock else "canary requests"
        how = " in a row" if rule.in_a_row else ""
        setting = f"every {rule.size * unit} {asked}, {rule.failures} above {rule.bound:.2%}{how}"
        rows.append(_row(f"{name}, tuned to {told}", setting, run))
    return rows


def wald(config: RolloutConfig, rates: tuple[float, float], rollouts: int, seed: int) -> Array:
    """Until the likelihood ratio of 3 % to 1 % on the canary reaches 1/alpha (Wald 1945)."""
    random = np.random.default_rng(seed)
    evidence, took = np.zeros(rollouts), np.full(rollouts, np.inf)
    step = 5
    for done in range(step, sum(stage.min_requests for stage in config.stages) + 1, step):
        errors = random.binomial(step, rates[0], rollouts)
        evidence += errors * np.log(HARM / USUAL) + (step - errors) * np.log((1 - HARM) / (1 - USUAL))
        took = np.where(np.isinf(took) & (evidence >= -np.log(config.alpha)), done, took)
    return took


def _share(took: Array) -> float:
    return float(np.isfinite(took).mean())


ALARMS = ("alarms at 0.1 %", "0.5 %", "1 %", "2 %", "5 %")
COLUMNS = ("rule", "setting", *ALARMS, "caught", "median", "ours / it")


def _cells(row: Row, ours: float) -> tuple[str, ...]:
    rates = (f"{share:.2%}" for share in row.false_alarms.values())
    ratio = f"{ours / row.median:.2f}" if np.isfinite(row.median) else ""
    median = f"{row.median:.0f}" if np.isfinite(row.median) else "never"
    return (row.rule, row.setting, *rates, f"{row.caught:.2%}", median, ratio)


def show(name: str, rows: Sequence[Row]) -> None:
    table = Table(*COLUMNS, title=f"1 % to {HARM:.0%} errors: {name}")
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
    each = ", ".join(f"{name} {share:.2%}" for name, share in record["by_rule"].items())
    before = ", ".join(f"{name.split()[0]} {share:.2%}" for name, share in scenario.by_request.items())
    median = record["median_s"]
    return (
        scenario.name,
        f"{scenario.rolled_back:.2%}",
        each,
        "" if median is None or scenario.name == CROWD else f"{median:.0f}",
        before,
    )


def save(scenarios: Sequence[Scenario], rows: dict[str, list[Row]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kept = {
        plan: [
            {key: value for key, value in asdict(row).items() if key != "took"}
            | {"median": row.median if np.isfinite(row.median) else None}
            for row in found
        ]
        for plan, found in rows.items()
    }
    (folder / "rollout.json").write_text(
        json.dumps({"in_time": [one.record() for one in scenarios], "by_request": kept}, indent=1)
    )
    lines = [
        "## Stages and watch",
        "",
        "| scenario | rolled back | by rule | median s | counted by request |",
    ]
    lines += ["|---|---|---|---|---|", *("| " + " | ".join(_scenario_cells(one)) + " |" for one in scenarios)]
    for plan, found in rows.items():
        lines += ["", f"## 1 % to {HARM:.0%} errors: {plan}", "", "| " + " | ".join(COLUMNS) + " |"]
        lines += ["|" + "---|" * len(COLUMNS)]
        lines += ["| " + " | ".join(_cells(row, found[0].median)) + " |" for row in found]
    (folder / "rollout.md").write_text("\n".join([*lines, ""]))
    plot(rows, folder / "rollout.png")


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
        axis.set(title=f"1 % to 3 % errors: {plan}", xlabel="canary requests", ylabel="rolled back")
        axis.set_xlim(0, 2500)
    axes[0].legend(fontsize=8, loc="lower right")
    for row in _drawn(rows["the plan"]):
        if row.rule != "Wald's test":
            rates = [float(rate) for rate in row.false_alarms]
            shares = [max(share, 3e-5) for share in row.false_alarms.values()]
            axes[2].plot(rates, shares, marker="o", **_style(row))
    axes[2].axhline(0.01, color="k", linewidth=0.8, linestyle=":")
    axes[2].set(xscale="log", yscale="log", xlabel="error rate of both variants", ylabel="rolled back",
                title="identical canary (dotted: alpha)")  # fmt: skip
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


COLOURS = {OURS: "C3", "Wald's test": "0.6", "Flagger-like: own rate": "C0", "Argo-like: above stable": "C2"}
LINES = {"1 %": "-", "0.5 to 2 %": "--", "0.1 to 5 %": ":"}


def _drawn(rows: Sequence[Row]) -> list[Row]:
    """Without the rules by the clock, that a plot has room for the rest."""
    return [row for row in rows if "in all" not in row.setting and "seven" not in row.rule]


def _style(row: Row) -> dict[str, str | float]:
    name, _, told = row.rule.partition(", tuned to ")
    return {
        "color": COLOURS[name],
        "linestyle": LINES.get(told, "-"),
        "label": row.rule,
        "linewidth": 2.2 if row.rule == OURS else 1.3,
    }


if __name__ == "__main__":
    main()
