"""How many good canaries are taken back, and how soon a bad one is: our rules beside other ways to judge.

    python -m benchmarks.rollout [--quick] [--rollouts 10000] [--only time crowd plan no-shadow] [--again]

Simulated rollouts of configs/rollout.yaml, the watch after promotion included, with fixed seeds, on one core.

First, in time (benchmarks/moments.py): identical canaries among customers who fail and ask again and on a
machine that stalls; canaries that err, or are slower. A look after every block (`block_s`). Beside them what
the rules found when they counted requests. Second (benchmarks/crowd.py): the rules about customers, with the
same customers in every stage, three looks a stage.

Third, request by request: a canary that errs on 3 % of requests beside a stable that errs on 1 %: the share
that is caught within the plan, and the canary's requests until then, mirrored ones included. Ours looks every
20 canary requests, as one of the rivals may, and in a line of its own after each. Rivals: thresholds checked
every so many requests or minutes (benchmarks/threshold_rules.py), each the best of some two hundred settings;
the mSPRT of experimentation platforms, and Wald's test, which is given both rates and so is the limit of any
rule (benchmarks/sequential_rivals.py); Kayenta's judgement (benchmarks/kayenta.py). Each rival as published
and tuned, on other rollouts than it is shown on: to the error rate as it will be, or to hold its false alarms
over a range of rates, as ours do untuned.

Results: tables, and rollout.json, rollout.md and rollout.png in --out. Parts that are there already are taken
from --out/parts (unless the code or the settings have changed since), so that a run goes on where it stopped.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import crowd, kayenta, moments, rollouts, sequential_rivals, threshold_rules
from benchmarks.moments import World
from benchmarks.parts import Parts, digest
from benchmarks.rollout_report import CROWD, OURS, Row, Scenario, out, save, share, show, show_scenarios
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
HARM, NORMAL = 0.03, 0.01
"""Error rates: of a bad canary, and of stable."""
OTHERS = (0.001, 0.005, 0.02, 0.05)
"""Error rates of both variants that a rule tuned to 1 % may meet."""
RANGES = {"1 %": (NORMAL,), "0.5 to 2 %": (0.005, 0.01, 0.02), "0.1 to 5 %": (0.001, 0.01, 0.05)}
STEP = 20
"""Canary requests between two looks of the sequential tests."""
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
PLANS = {
    "plan": "1 % to 3 % errors: the plan",
    "no-shadow": "1 % to 3 % errors: the plan without its shadow window",
}
ONLY = ("time", "crowd", *PLANS)
CODE = (
    __file__,
    *(one.__file__ for one in (crowd, kayenta, moments, rollouts, sequential_rivals, threshold_rules)),
)
"""With the rules themselves, what results depend on."""
Run = Callable[[tuple[float, float], int], Array]
"""Error rates of canary and stable, and a seed: canary requests until the rollback."""


def main() -> None:
    options = parse_arguments()
    plan, count = load_settings().rollout, options.rollouts
    # every rule has something to judge, and so a part of alpha
    config = plan.model_copy(update={"labels": Path("labels.parquet"), "segments": ("segment",)})
    made_by = digest(
        [*map(Path, CODE), *(ROOT / "rollout").rglob("*.py")], config.model_dump_json(), str(count)
    )
    parts = Parts(options.out / "parts", made_by, options.again)
    scenarios = in_time(parts, config, count) if "time" in options.only else []
    if "crowd" in options.only:
        scenarios.append(scenario(parts, CROWD, partial(_together, crowd.judged, config, count)))
    show_scenarios(scenarios)
    without = config.model_copy(update={"stages": config.stages[1:]})
    rows = {
        PLANS[name]: compared(parts, name, judged, count)
        for name, judged in (("plan", config), ("no-shadow", without))
        if name in options.only
    }
    for title, found in rows.items():
        show(title, found)
    save(scenarios, rows, options.out)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rollouts", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="1,000 rollouts")
    parser.add_argument("--only", nargs="+", choices=ONLY, default=ONLY, help="these parts of it")
    parser.add_argument("--again", action="store_true", help="take no part of an earlier run")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench" / "rollout")
    options = parser.parse_args()
    if options.quick:
        options.rollouts = 1000
    return options


def in_time(parts: Parts, config: RolloutConfig, rollouts: int) -> list[Scenario]:
    """Each world, in chunks that fit into memory."""
    found = []
    for name, world in WORLDS.items():
        found.append(scenario(parts, name, partial(_together, moments.judged, config, rollouts, world)))
        each = ", ".join(f"{rule} {share(one):.2%}" for rule, one in found[-1].took.items())
        out.print(f"[dim]{name}: {each}")
    return found


def scenario(parts: Parts, name: str, make: Callable[[], dict[str, Array]]) -> Scenario:
    def record() -> dict[str, list[float]]:
        return {rule: took.tolist() for rule, took in make().items()}

    return Scenario(name, {rule: np.array(took) for rule, took in parts.part(name, record).items()})


def _together(
    judged: Callable[..., dict[str, Array]], config: RolloutConfig, rollouts: int, *args: Any
) -> dict[str, Array]:
    chunks = [
        judged(config, *args, min(CHUNK, rollouts - start), seed=1000 + start)
        for start in range(0, rollouts, CHUNK)
    ]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def compared(parts: Parts, plan: str, config: RolloutConfig, rollouts: int) -> list[Row]:
    """Every rule in one plan; ours first."""
    families = {
        "ours": our_rows,
        "flagger, by requests": partial(threshold_rows, against_stable=False, by_clock=False),
        "flagger, by the clock": partial(threshold_rows, against_stable=False, by_clock=True),
        "argo, by requests": partial(threshold_rows, against_stable=True, by_clock=False),
        "argo, by the clock": partial(threshold_rows, against_stable=True, by_clock=True),
        "msprt": msprt_rows,
        "kayenta": kayenta_rows,
    }
    rows = []
    for family, make in families.items():
        found = parts.part(
            f"{plan}: {family}", lambda make=make: [row.record() for row in make(config, rollouts)]
        )
        rows += [Row.of(one) for one in found]
        for row in rows[-len(found) :]:
            out.print(f"[dim]{plan}, {row.rule}: {row.setting}: median {row.median:g}")
    return rows


def _row(rule: str, setting: str, run: Run) -> Row:
    """Tried on seeds that tuned nothing."""
    alarms = {f"{rate:g}": share(run((rate, rate), 31)) for rate in sorted((NORMAL, *OTHERS))}
    took = run((HARM, NORMAL), 32)
    return Row(rule, setting, alarms, share(took), float(np.median(took)), took)


def our_rows(config: RolloutConfig, rollouts: int) -> list[Row]:
    def alone(rates: tuple[float, float], seed: int, part: float = 1.0, step: int = STEP) -> Array:
        return error_rule_alone(config, rates, config.alpha * part, step, rollouts, seed)

    def wald(rates: tuple[float, float], seed: int) -> Array:
        requests = sum(stage.min_requests for stage in config.stages)
        return sequential_rivals.wald(rates, (HARM, NORMAL), config.alpha, requests, rollouts, seed)

    alpha = f"alpha {config.alpha:g}"
    return [
        _row(OURS, f"{alpha}, looks every {STEP}", alone),
        _row(f"{OURS}, each request", f"{alpha}, a look after each canary request", partial(alone, step=1)),
        _row(f"{OURS}, as one of seven", f"4/11 of alpha, looks every {STEP}", partial(alone, part=4 / 11)),
        _row("Wald's test", "given both rates", wald),
    ]


def threshold_rows(config: RolloutConfig, rollouts: int, against_stable: bool, by_clock: bool) -> list[Row]:
    name = "Argo-like: above stable" if against_stable else "Flagger-like: own rate"
    sizes, unit = (MINUTES, CLOCK) if by_clock else (INTERVALS, UNIT)
    harmed = simulated(config.stages, (HARM, NORMAL), by_clock, rollouts, 21)
    rows = []
    for label, rates in RANGES.items():
        harmless = [simulated(config.stages, (rate, rate), by_clock, rollouts, 22) for rate in rates]
        rule = tuned(harmless, harmed, sizes, against_stable, config.alpha)

        def run(rates: tuple[float, float], seed: int, rule: Tuned = rule) -> Array:
            units = simulated(config.stages, rates, by_clock, rollouts, seed)
            seen = checked(units, rule.size, against_stable)
            return stopped(seen, rule.failures, rule.in_a_row, rule.bound)

        counted = "requests in all" if by_clock else "canary requests"
        how = " in a row" if rule.in_a_row else ""
        setting = f"every {rule.size * unit} {counted}, {rule.failures} above {rule.bound:.2%}{how}"
        rows.append(_row(f"{name}, tuned to {label}", setting, run))
    return rows


def msprt_rows(config: RolloutConfig, rollouts: int) -> list[Row]:
    def paths(rates: tuple[float, float], seed: int) -> sequential_rivals.Path:
        return sequential_rivals.observed(config.stages, rates, STEP, rollouts, seed)

    def row(name: str, rule: sequential_rivals.Mixture) -> Row:
        sides = "one-sided" if rule.one_sided else "two-sided"
        setting = f"{sides}, tau {rule.tau:g}, ratio {np.exp(rule.bound):.3g}, looks every {STEP}"
        return _row(name, setting, lambda rates, seed: sequential_rivals.stopped(paths(rates, seed), rule))

    harmful = paths((HARM, NORMAL), 21)
    rows = [row("mSPRT, as published", sequential_rivals.published(HARM - NORMAL, config.alpha))]
    for label, rates in RANGES.items():
        null = [paths((rate, rate), 22) for rate in rates]
        rows.append(row(f"mSPRT, tuned to {label}", sequential_rivals.tuned(null, harmful, config.alpha)))
    return rows


def kayenta_rows(config: RolloutConfig, rollouts: int) -> list[Row]:
    requests = sum(stage.min_requests for stage in config.stages)

    def errors(rates: tuple[float, float], size: int, seed: int) -> kayenta.Errors:
        return kayenta.simulated(rates, requests, size, rollouts, seed)

    def every_size(rates: tuple[float, float], seed: int) -> list[kayenta.Errors]:
        return [errors(rates, size, seed) for size in kayenta.MOMENT_SIZES]

    def row(name: str, judge: kayenta.Judge) -> Row:
        setting = f"a run every {judge.moments} moments of {judge.size} canary requests"
        setting += f", ratio {judge.allowed_increase:.3g}"
        return _row(name, setting, lambda rates, seed: kayenta.took(errors(rates, judge.size, seed), judge))

    harmful = every_size((HARM, NORMAL), 21)
    rows = [row("Kayenta, as documented", kayenta.documented(harmful))]
    for label, rates in RANGES.items():
        null = [every_size((rate, rate), 22) for rate in rates]
        rows.append(row(f"Kayenta, tuned to {label}", kayenta.tuned(null, harmful, config.alpha)))
    return rows


if __name__ == "__main__":
    main()
