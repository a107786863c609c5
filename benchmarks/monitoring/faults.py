"""Planted faults of the data: is there a page, does it name the fault, and what else pages?

Each fault is planted in copies of a real log at several times, and the whole of `churn monitor` reads the
files. As many runs without a fault show how many pages are false. A page of a run with a fault is right where
its check is one that the fault can be named by.

    python -m benchmarks.monitoring.faults --records var/data/current/records
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.monitoring.ground import Ground, ground, write_records
from churn.settings import load_settings
from features.spec import Ratio
from monitoring.checks import past
from monitoring.config import MonitoringConfig
from monitoring.findings import Checked, Measurement, Monitored, Severity
from monitoring.run import collect, judge
from monitoring.sources import Sources

AFTER = pd.Timedelta(hours=6)
"""Predictions are made, and the monitor runs twice as long, after a snapshot."""


@dataclass(frozen=True)
class World:
    """What production looks like at one check."""

    ground: Ground
    served: pd.DataFrame
    """The newest vector of each customer, as the server read it, with `status`."""

    @classmethod
    def of(cls, ground: Ground) -> "World":
        newest = ground.snapshots[ground.snapshots["event_timestamp"] == ground.moments[-1]]
        return cls(ground, newest.assign(status="ok"))


Fault = Callable[[World, np.random.Generator], World]


def unit_of_feature(world: World, rng: np.random.Generator) -> World:
    return _newest(world, lambda rows: rows.assign(total_spend=rows["total_spend"] * 100))


def unit_of_amounts(world: World, rng: np.random.Generator) -> World:
    new = _new_rows(world)
    records = world.ground.records.copy()
    records.loc[new, "amount"] *= 100
    return World.of(world.ground.rebuilt(records))


def stuck_at_default(world: World, rng: np.random.Generator) -> World:
    return _newest(world, lambda rows: rows.assign(orders_90d=0))


def customers_lost_from_records(world: World, rng: np.random.Generator) -> World:
    gone = _drawn(world.ground.records["user_id"], 0.3, rng)
    return World.of(world.ground.rebuilt(world.ground.records[~world.ground.records["user_id"].isin(gone)]))


def customers_lost_from_snapshot(world: World, rng: np.random.Generator) -> World:
    gone = _drawn(world.served["user_id"], 0.3, rng)
    return _newest(world, lambda rows: rows[~rows["user_id"].isin(gone)])


def nulls(world: World, rng: np.random.Generator) -> World:
    def emptied(rows: pd.DataFrame) -> pd.DataFrame:
        lost = rng.random(len(rows)) < 0.9
        return rows.assign(avg_purchase_amount=rows["avg_purchase_amount"].mask(lost))

    return _newest(world, emptied)


def time_zone(world: World, rng: np.random.Generator) -> World:
    new = _new_rows(world)
    records = world.ground.records.copy()
    records.loc[new, "timestamp"] -= pd.Timedelta(hours=8)
    return World.of(world.ground.rebuilt(records))


def stale_store(world: World, rng: np.random.Generator) -> World:
    """The server answers from vectors that are older than the ttl, and says so."""
    old = world.ground.moments[-4]
    rows = world.ground.snapshots[world.ground.snapshots["event_timestamp"] == old]
    return replace(world, served=rows.assign(status="stale"))


def copied_snapshot(world: World, rng: np.random.Generator) -> World:
    before = world.ground.snapshots[world.ground.snapshots["event_timestamp"] == world.ground.moments[-2]]
    moment = world.ground.moments[-1]
    return _newest(world, lambda rows: before.assign(event_timestamp=moment, created_timestamp=moment))


def duplicated_events(world: World, rng: np.random.Generator) -> World:
    new = world.ground.records[_new_rows(world)]
    return World.of(world.ground.rebuilt(pd.concat([world.ground.records, new], ignore_index=True)))


def wrong_currency(world: World, rng: np.random.Generator) -> World:
    new = _new_rows(world) & (world.ground.records["country"] == "NL").to_numpy()
    records = world.ground.records.copy()
    records.loc[new, "amount"] *= 7.46  # kroner instead of euros
    return World.of(world.ground.rebuilt(records))


def skew_unit(world: World, rng: np.random.Generator) -> World:
    return _skewed(world, rng, lambda rows: rows["avg_purchase_amount"] * 100)


def skew_stale(world: World, rng: np.random.Generator) -> World:
    before = world.ground.snapshots[world.ground.snapshots["event_timestamp"] == world.ground.moments[-2]]
    old = before.set_index("user_id")["avg_purchase_amount"]
    return _skewed(world, rng, lambda rows: rows["user_id"].map(old), changed_only=True)


def skew_default(world: World, rng: np.random.Generator) -> World:
    return _skewed(world, rng, lambda rows: pd.Series(np.nan, rows.index))


FAULTS: Mapping[str, tuple[Fault, tuple[str, ...]]] = {
    "unit error x100 (feature)": (unit_of_feature, ("unit_change", "snapshot_unit")),
    "unit error x100 (amounts)": (unit_of_amounts, ("amounts",)),
    "feature stuck at its default": (
        stuck_at_default,
        ("column_constant", "stuck_at_default", "snapshot_default"),
    ),
    "30 % of customers missing (records)": (customers_lost_from_records, ("past_customers", "past_rows")),
    "30 % of customers missing (snapshot)": (customers_lost_from_snapshot, ("snapshot_missing",)),
    "90 % nulls": (nulls, ("newly_null", "nulls", "snapshot_default")),
    "time-zone slip": (time_zone, ("time_zone",)),
    "stale store": (stale_store, ("served_stale",)),
    "stale snapshot (a copy)": (copied_snapshot, ("copied_snapshot", "snapshot_stale")),
    "duplicated events": (duplicated_events, ("duplicates",)),
    "wrong currency in one country": (wrong_currency, ("amounts",)),
    "skew, 1 of 20 features, 1 % of customers (unit)": (skew_unit, ("skew_unit",)),
    "skew, 1 of 20 features, 1 % of customers (stale)": (skew_stale, ("skew_stale",)),
    "skew, 1 of 20 features, 1 % of customers (null)": (skew_default, ("skew_default",)),
}
"""Name -> the fault, and the checks that name it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, default=Path("var/data/current/records"))
    parser.add_argument("--times", type=int, default=5, help="checks at which each fault is planted")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="faults whose names contain one of these words"
    )
    parser.add_argument("--out", type=Path, default=Path("var/bench/monitoring-faults.json"))
    arguments = parser.parse_args()
    settings = load_settings()
    config = settings.monitoring.model_copy(update={"segments": ("country",)})
    world = ground(settings.features, arguments.records, int(config.every_days), 24)
    moments = world.moments[-2 * arguments.times :: 2]
    named = [name for name in FAULTS if any(word in name for word in arguments.only)]
    chosen = (None, *named) if arguments.only == [""] else named
    rows = [run(name, moment, world, config) for name in chosen for moment in moments]
    result = summary(pd.DataFrame(rows))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def run(name: str | None, moment: pd.Timestamp, whole: Ground, config: MonitoringConfig) -> dict[str, Any]:
    """Plant the fault at this moment and run the monitor."""
    begin = time.monotonic()
    clean = whole.until(moment)
    world = World.of(clean)
    if name is not None:
        world = FAULTS[name][0](world, np.random.default_rng(moment.dayofyear))
    pages = [one for one in judged(world, clean, config).findings if one.severity is Severity.PAGE]
    named = FAULTS[name][1] if name else ()
    row = {
        "fault": name or "none",
        "at": moment,
        "found": any(one.check in named for one in pages),
        "right": sum(one.check in named for one in pages),
        "wrong": sum(one.check not in named for one in pages),
        "pages": [one.key for one in pages],
        "seconds": time.monotonic() - begin,
    }
    print(row["fault"], f"{moment:%Y-%m-%d}", row["pages"], f"{row['seconds']:.1f} s", flush=True)
    return row


def judged(world: World, clean: Ground, config: MonitoringConfig) -> Checked:
    """The findings of `churn monitor` for these data. The run before saw the clean data."""
    moment = world.ground.moments[-1]
    at = (moment + 2 * AFTER).to_pydatetime()
    since = at - timedelta(days=config.every_days)
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        root = Path(scratch)
        before = _before(clean, since, root, config)
        write_records(world.ground.records, root / "base-00000.parquet")
        snapshots = world.ground.snapshots.sort_values(["event_timestamp", "user_id"])
        moment_us = snapshots["event_timestamp"].dt.as_unit("us")
        snapshots = snapshots.assign(event_timestamp=moment_us, created_timestamp=moment_us)
        snapshots.to_parquet(root / "snapshots.parquet", index=False, row_group_size=50_000)
        _write_log(world, moment + AFTER, root / "predictions")
        sources = Sources(
            spec=world.ground.spec,
            since=since,
            at=at,
            records=[root / "base-00000.parquet"],
            snapshots=root / "snapshots.parquet",
            labels=root / "none",
            training=root / "none",
            test_scores=root / "none",
            predictions=root / "predictions",
        )
        return judge(collect(sources, config, before))


def _before(clean: Ground, at: Any, root: Path, config: MonitoringConfig) -> list[Monitored]:
    """The run at the end of the window before, as far as a later run reads it."""
    write_records(clean.records, root / "before.parquet")
    counted = past.check(past.count([root / "before.parquet"], at, None), config)
    served = [Measurement("served_stale_share", 0.0, 5000), Measurement("served_unknown_share", 0.0, 5000)]
    checked = Checked((*counted.measurements, *served))
    return [Monitored("churn", at, at - timedelta(days=config.every_days), "1", checked, "")]


def _write_log(world: World, at: pd.Timestamp, folder: Path) -> None:
    """The prediction log of one batch over all served customers."""
    rows = world.served
    names = [feature.name for feature in world.ground.spec.features]
    log = pd.DataFrame(
        {
            "time": at,
            "user_id": rows["user_id"],
            "features_at": rows["event_timestamp"],
            "status": rows["status"],
            "overridden": [[] for _ in range(len(rows))],
            "score": 0.5,
            **{f"feature_{name}": rows[name] for name in names},
            **{f"feature_{ratio.name}": _derived(rows, ratio) for ratio in world.ground.spec.derived},
        }
    )
    day = folder / f"date={at:%Y-%m-%d}"
    day.mkdir(parents=True)
    for column in ("time", "features_at"):
        log[column] = log[column].dt.as_unit("us")  # as a worker writes them
    log.to_parquet(day / "segment.parquet", index=False)


def _derived(rows: pd.DataFrame, ratio: Ratio) -> pd.Series:
    return rows[ratio.numerator] / np.maximum(rows[ratio.denominator], ratio.floor)


def _newest(world: World, change: Callable[[pd.DataFrame], pd.DataFrame]) -> World:
    """Change the newest snapshot, from which the server reads."""
    snapshots, moment = world.ground.snapshots, world.ground.moments[-1]
    newest = snapshots["event_timestamp"] == moment
    changed = pd.concat([snapshots[~newest], change(snapshots[newest])], ignore_index=True)
    return World.of(replace(world.ground, snapshots=changed))


def _skewed(
    world: World,
    rng: np.random.Generator,
    values: Callable[[pd.DataFrame], pd.Series],
    changed_only: bool = False,
) -> World:
    """The server has other values of one feature for 1 % of the customers."""
    rows = world.served.reset_index(drop=True)
    other = values(rows)
    # a customer who was not in the snapshot before has no older value
    differs = (other != rows["avg_purchase_amount"]) & other.notna()
    candidates = np.flatnonzero(differs) if changed_only else np.arange(len(rows))
    chosen = rng.choice(candidates, min(len(rows) // 100, len(candidates)), replace=False)
    rows.loc[chosen, "avg_purchase_amount"] = other[chosen]
    return replace(world, served=rows)


def _new_rows(world: World) -> np.ndarray:
    """The rows of the last window."""
    moments = world.ground.moments
    return np.asarray(world.ground.records["timestamp"] >= moments[-2])


def _drawn(users: pd.Series, share: float, rng: np.random.Generator) -> set[str]:
    everyone = np.sort(users.unique())
    return set(everyone[rng.random(len(everyone)) < share])


def summary(rows: pd.DataFrame) -> dict[str, Any]:
    """Recall by fault, precision of all pages, and the false pages of the runs without a fault."""
    planted = rows[rows["fault"] != "none"]
    clean = rows[rows["fault"] == "none"]
    right, wrong = int(planted["right"].sum()), int(planted["wrong"].sum() + clean["wrong"].sum())
    return {
        "runs": len(rows),
        "recall": float(planted["found"].mean()),
        "precision": right / max(right + wrong, 1),
        "right_pages": right,
        "wrong_pages": wrong,
        "clean_runs": len(clean),
        "clean_runs_with_a_page": int((clean["wrong"] > 0).sum()),
        "faults": {
            str(name): {
                "runs": len(of),
                "found": int(of["found"].sum()),
                "wrong_pages": int(of["wrong"].sum()),
                "pages": sorted({page for pages in of["pages"] for page in pages}),
            }
            for name, of in rows.groupby("fault", sort=False)
        },
    }


if __name__ == "__main__":
    main()
