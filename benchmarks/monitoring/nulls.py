"""False pages: histories without a change, made by drawing customers of a real log with replacement.

A customer is drawn with all rows and at all times, so that whatever the customers of a step have in common
(season, age of the log, growth of tenure) stays in the history. Every check whose findings page is made at
each step. Counts of a drawn history are sums over customers, so that those of all histories are products of
matrices; they are judged by the code of `churn monitor`.

The log has no predictions, so that serving is made: at each check 70 % of the customers of the snapshot are
asked for, 1 % of these get a score from stale features, and 1 % are not known yet. Checks of facts (columns,
skew, a changed past, ages) depend on each customer's own rows. Columns are counted in each history. The other
facts are evaluated by whole runs of `churn monitor` on the log itself at each check: a drawn history has a
customer with a difference only if the log has one. Harm has histories of its own
(benchmarks/monitoring/outcomes.py).

    python -m benchmarks.monitoring.nulls --records var/data/current/records
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.monitoring.faults import World, judged
from benchmarks.monitoring.ground import COUNTRIES, Ground, ground, write_records
from churn.settings import load_settings
from monitoring.activity import read_arrivals
from monitoring.checks import arrivals, served, transitions
from monitoring.checks.shares import History, Properties
from monitoring.config import MonitoringConfig
from monitoring.sources import Sources

CHUNK = 250
"""Histories that are drawn at a time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, default=Path("var/data/current/records"))
    parser.add_argument("--histories", type=int, default=2000)
    parser.add_argument("--checks", type=int, default=24)
    parser.add_argument("--whole", type=int, default=24, help="whole runs on the log itself; 0: none")
    parser.add_argument("--out", type=Path, default=Path("var/bench/monitoring-nulls.json"))
    arguments = parser.parse_args()
    settings = load_settings()
    config = settings.monitoring.model_copy(update={"segments": ("country",)})
    world = ground(settings.features, arguments.records, int(config.every_days), arguments.checks)
    steps = [
        *_transition_steps(world, config),
        *_arrival_steps(world, config),
        *_snapshot_steps(world),
    ]
    result = simulate(steps, world, config, arguments.histories, arguments.checks)
    result["whole_runs"] = whole_runs(world, config, arguments.whole)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


Step = tuple[str, int, Properties, np.ndarray]
"""Check, step, properties, and the number of the customer of each row of the properties."""


def simulate(
    steps: list[Step], world: Ground, config: MonitoringConfig, histories: int, checks: int
) -> dict[str, Any]:
    """Draw histories and count those with any alarm in the last `checks` steps."""
    begin = time.monotonic()
    customers = world.records["user_id"].nunique()
    last = {check: max(step for name, step, _, _ in steps if name == check) for check in CHECKS}
    alarmed: set[int] = set()
    causes: dict[str, int] = {}
    looked_at = 0
    for first in range(0, histories, CHUNK):
        seeds = np.arange(first, min(first + CHUNK, histories))
        weights = np.stack([_weights(seed, customers) for seed in seeds])
        for (check, subject, kind), (hits, rows, number) in _counts(steps, weights).items():
            if (
                check == "columns"
            ):  # a fact: a column is a fault if no customer has another value, or any value
                late = np.array(number) > last[check] - checks
                bare = ((hits == 0) & (rows >= config.min_rows) & late).any(axis=1)
                alarmed |= set(seeds[bare].tolist())
                causes |= {f"{kind}:{subject}": int(bare.sum())} if bare.any() else {}
                continue
            empty = _history(check, subject, kind, world, config)
            suspects = np.flatnonzero(_exceeds(hits, rows, empty, config))
            looked_at += len(suspects)
            for suspect in suspects:
                history = _history(check, subject, kind, world, config)
                alarms = [
                    step
                    for step, hit, row in zip(number, hits[suspect], rows[suspect], strict=True)
                    if history.add(hit, row).is_alarm and step > last[check] - checks
                ]
                if alarms:
                    alarmed.add(int(seeds[suspect]))
                    causes[f"{kind}:{subject}"] = causes.get(f"{kind}:{subject}", 0) + 1
        seconds = time.monotonic() - begin
        print(f"{seeds[-1] + 1} histories, {len(alarmed)} with a page, {seconds:.0f} s", flush=True)
    return {
        "histories": histories,
        "checks": checks,
        "customers": customers,
        "tests_a_check": len({(c, k) for c, s, p, _ in steps for k in p.keys if s == last[c]}),
        "alpha": config.alpha,
        "with_any_page": len(alarmed),
        "pages_by_check": causes,
        "judged_exactly": looked_at,
        "seconds": round(time.monotonic() - begin),
    }


Series = tuple[np.ndarray, np.ndarray, list[int]]
"""Hits and rows [histories, steps], and the number of each step."""


def _counts(steps: list[Step], weights: np.ndarray) -> dict[tuple[str, str, str], Series]:
    """The counts of each test in each drawn history."""
    parts: dict[tuple[str, str, str], list[tuple[int, np.ndarray, np.ndarray]]] = {}
    for check, step, properties, users in steps:
        mine = weights[:, users]
        hits = mine @ (properties.hits & properties.among).astype(np.float32)
        rows = mine @ properties.among.astype(np.float32)
        for place, key in enumerate(properties.keys):
            parts.setdefault((check, *key), []).append((step, hits[:, place], rows[:, place]))
    series: dict[tuple[str, str, str], Series] = {}
    for key, of in parts.items():
        number, hits, rows = zip(*of, strict=True)
        series[key] = np.stack(hits, axis=1), np.stack(rows, axis=1), list(number)
    return series


def _exceeds(hits: np.ndarray, rows: np.ndarray, history: History, config: MonitoringConfig) -> np.ndarray:
    """Whether a history has a step whose share is above the smallest bound that it can have.

    Without such a step no e-value is above 1, so that there is no alarm and the history need not be judged.
    """
    shares = np.where(rows >= config.min_rows, hits / np.maximum(rows, 1), np.nan)
    above = np.zeros(len(shares), dtype=bool)
    size, margin = history.margin.size, history.margin
    for step in range(1, shares.shape[1]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # no step with enough rows yet
            # a step with too few rows is no part of the past: more steps are looked at than the check does
            past = np.nanmedian(shares[:, max(step - history.length, 0) : step], axis=1)
        least = past + size
        if margin.is_ratio:
            least = 1 - (1 - past) / size if margin.of_rest else past * size
        above |= shares[:, step] > np.maximum(least, margin.least)
    return above


def _history(check: str, subject: str, kind: str, world: Ground, config: MonitoringConfig) -> History:
    if check == "served":
        return served.history(kind, config)
    if check == "arrivals":
        return arrivals.Histories(1 + len(COUNTRIES), config).new(kind)
    return transitions.Histories(world.spec, config).new(subject, kind)


CHECKS = ("transitions", "arrivals", "served", "columns")


def _transition_steps(world: Ground, config: MonitoringConfig) -> Iterator[Step]:
    users = {user: number for number, user in enumerate(np.sort(world.records["user_id"].unique()))}
    frames = dict(iter(world.snapshots.groupby("event_timestamp")))
    moments = sorted(frames)
    for step, (before, now) in enumerate(pairwise(moments)):
        old, new = (frames[moment].set_index("user_id") for moment in (before, now))
        properties = transitions.changes(old, new, world.spec, config)
        both = new.index[new.index.isin(old.index)]
        yield "transitions", step, properties, np.array([users[user] for user in both])


def _arrival_steps(world: Ground, config: MonitoringConfig) -> Iterator[Step]:
    everyone = np.sort(world.records["user_id"].unique())
    with tempfile.TemporaryDirectory() as scratch:
        part = Path(scratch) / "base-00000.parquet"
        write_records(world.records, part)
        end = world.moments[-1].to_pydatetime()
        none = Path(scratch) / "none"
        longer = config.model_copy(update={"history": 60})
        log = read_arrivals(Sources(world.spec, end, end, [part], none, none, none, none, none), longer)
    assert log is not None
    bought = world.records[~world.records["is_return"].fillna(False).astype(bool)]
    users = np.searchsorted(everyone, np.sort(bought["user_id"].unique()))
    for step, properties in arrivals.properties_of(log, config):
        yield "arrivals", step, properties, users


def _snapshot_steps(world: Ground) -> Iterator[Step]:
    """Made serving of each snapshot, and the columns that vary or have a value in the log."""
    users = {user: number for number, user in enumerate(np.sort(world.records["user_id"].unique()))}
    random = np.random.default_rng(0)
    for step, (_, rows) in enumerate(world.snapshots.groupby("event_timestamp")):
        everyone = np.ones(len(rows), dtype=bool)
        asked = random.random(len(rows)) < 0.7
        flags: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {
            ("predictions", "served_fewer"): (~asked, everyone),
            ("predictions", "served_stale"): (random.random(len(rows)) < 0.01, asked),
            ("predictions", "served_unknown"): (random.random(len(rows)) < 0.01, asked),
        }
        number = np.array([users[user] for user in rows["user_id"]])
        yield "served", step, Properties.of(flags, len(rows)), number
        columns = {}
        for feature in world.spec.features:
            values = rows[feature.name]
            if values.nunique() > 1:
                most_frequent = (values == values.mode().iloc[0]).to_numpy()
                columns[feature.name, "column_constant"] = ~most_frequent, everyone
                columns[feature.name, "column_empty"] = values.notna().to_numpy(), everyone
        yield "columns", step, Properties.of(columns, len(rows)), number


def whole_runs(world: Ground, config: MonitoringConfig, runs: int) -> dict[str, Any]:
    """Pages of whole runs on the log itself, at its last checks."""
    pages: dict[str, int] = {}
    moments = world.moments[-runs:] if runs else []
    for moment in moments:
        clean = world.until(moment)
        found = [one.key for one in judged(World.of(clean), clean, config).findings if one.severity == "page"]
        print("whole run", f"{moment:%Y-%m-%d}", found, flush=True)
        for key in found:
            pages[key] = pages.get(key, 0) + 1
    return {"runs": len(moments), "pages": pages}


def _weights(seed: int, customers: int) -> np.ndarray:
    """How often each customer is drawn."""
    drawn = np.random.default_rng(seed).integers(0, customers, customers)
    return np.bincount(drawn, minlength=customers).astype(np.float32)


if __name__ == "__main__":
    main()
