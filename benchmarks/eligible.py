"""Rules of eligibility on CDNOW and on synthetic logs, compared with scoring every customer ever seen.

    python -m benchmarks.eligible [--logs cdnow growing ...]

For each log, the last three labelled snapshots are the test rows, and snapshots that ended a horizon before
are the training rows of LightGBM with default settings. A rule is evaluated by the customers that it leaves
out: their number, how many of them buy again within the horizon, and their share of all buyers; and by the
metrics on the remaining customers, after training on all customers and on the eligible ones alone.
"""

import argparse
import importlib.metadata
import json
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from lightgbm import LGBMClassifier
from rich.console import Console
from rich.table import Table
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.logs import retail
from benchmarks.simulated import SHOPS, simulate
from core.workspace import Workspace
from features.build import build_features
from features.spec import FeaturesConfig

ROOT = Path(__file__).resolve().parent.parent
RULES = {
    "everybody": "recency_days >= 0",
    "180 days": "recency_days <= 180",
    "270 days": "recency_days <= 270",
    "365 days": "recency_days <= 365",
    "2 horizons": "recency_days <= 2 * @horizon",
    "3 horizons": "recency_days <= 3 * @horizon",
    "4 horizons": "recency_days <= 4 * @horizon",
    "1 horizon or 3 pauses": "recency_days <= @horizon or recency_days <= 3 * gap_max_days",
    "2 horizons or 3 pauses": "recency_days <= 2 * @horizon or recency_days <= 3 * gap_max_days",
    "3 horizons or 2 pauses": "recency_days <= 3 * @horizon or recency_days <= 2 * gap_max_days",
}
"""In pandas' words; a pause is the customer's longest so far."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--logs", nargs="+", default=["cdnow", "retail", *SHOPS])
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "benchmarks")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    for name in options.logs:
        rows = list(measure(name))
        show(name, rows)
        results += rows
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "eligible.json").write_text(json.dumps(results, indent=2) + "\n")


def measure(name: str) -> Iterator[dict[str, Any]]:
    """A row a rule."""
    rows, horizon, inputs = snapshots_of(name)
    moments = sorted(rows["event_timestamp"].unique())
    test = rows[rows["event_timestamp"].isin(moments[-3:])]
    train = rows[rows["event_timestamp"] + timedelta(days=horizon) <= moments[-3]]
    everybody = fitted(train, inputs)
    buyers = 1 - test["churned"]
    for rule, condition in RULES.items():
        stays = test.eval(condition, local_dict={"horizon": horizon})
        learned = pd.DataFrame(train[train.eval(condition, local_dict={"horizon": horizon})])
        judged = pd.DataFrame(test[stays])
        left = buyers[~stays]
        yield {
            "log": name,
            "rule": rule,
            "excluded": float((~stays).mean()),
            "excluded_who_buy": float(left.mean()) if len(left) else None,
            "buyers_excluded": float(left.sum() / buyers.sum()),
            "base_rate": float(test["churned"][stays].mean()),
            **scores("all", everybody, judged, inputs),
            **scores("own", fitted(learned, inputs), judged, inputs),
        }


def snapshots_of(name: str) -> tuple[pd.DataFrame, int, list[str]]:
    """Labelled rows of everybody ever seen, the horizon in days, and the names of the features."""
    shipped = yaml.safe_load((ROOT / "configs" / "features.yaml").read_text(encoding="utf-8"))
    own = SHOPS[name].features if name in SHOPS else {}
    spec = FeaturesConfig.model_validate(shipped | {"eligible": None} | own)
    log = cdnow() if name == "cdnow" else retail() if name == "retail" else simulate(SHOPS[name])
    with tempfile.TemporaryDirectory(prefix="churn-bench-") as folder:
        files = Workspace(Path(folder))
        write_records(files, log.astype({"user_id": str, "quantity": float}))
        build_features(spec, files, progress=lambda message: None)
        rows = pd.read_parquet(files.labels).merge(
            pd.read_parquet(files.snapshots), on=["user_id", "event_timestamp"]
        )
    return rows, spec.horizon_days, [feature.name for feature in spec.features]


def write_records(files: Workspace, log: pd.DataFrame) -> None:
    """As `churn ingest` leaves them: sorted, in whole days, returns marked."""
    log = log.assign(is_return=log["amount"] < 0)[
        ["user_id", "timestamp", "amount", "quantity", "is_return"]
    ].sort_values(["user_id", "timestamp"])
    files.records.mkdir(parents=True)
    table = pa.Table.from_pandas(log, preserve_index=False)
    place = table.column_names.index("timestamp")
    moments = table["timestamp"].cast(pa.timestamp("us", tz="UTC"))
    pq.write_table(table.set_column(place, "timestamp", moments), files.records / "base.parquet")
    first, last = (
        edge.floor("D").to_pydatetime() for edge in (log["timestamp"].min(), log["timestamp"].max())
    )
    window = {"start": first.isoformat(), "end": (last + timedelta(days=1)).isoformat()}
    manifest = {"shape": "transactions", "rows": len(log), "window": window}
    files.manifest.write_text(json.dumps(manifest))


def cdnow() -> pd.DataFrame:
    package = importlib.metadata.distribution("Lifetimes").files or []
    table = pd.read_csv(str(next(f for f in package if f.name == "CDNOW_master.txt").locate()), sep=r"\s+")
    return pd.DataFrame(
        {
            "user_id": table["customer_id"].astype(str),
            "timestamp": pd.to_datetime(table["date"].astype(str), utc=True),
            "amount": table["dollar_value"].astype(float),
            "quantity": table["number_of_cds"].astype(float),
        }
    )


def fitted(rows: pd.DataFrame, inputs: list[str]) -> LGBMClassifier:
    model = LGBMClassifier(n_estimators=150, learning_rate=0.05, num_leaves=15, n_jobs=1, verbose=-1)
    return model.fit(rows[inputs], rows["churned"])


def scores(kind: str, model: LGBMClassifier, rows: pd.DataFrame, inputs: list[str]) -> dict[str, float]:
    churn = np.asarray(model.predict_proba(rows[inputs]))[:, 1]
    return {
        f"{kind}_log_loss": float(log_loss(rows["churned"], churn)),
        f"{kind}_auroc": float(roc_auc_score(rows["churned"], churn)),
    }


def show(name: str, rows: list[dict[str, Any]]) -> None:
    columns = [key for key in rows[0] if key != "log"]
    table = Table(*columns, title=name)
    for row in rows:
        table.add_row(*(f"{v:.4f}" if isinstance(v, float) else str(v) for k, v in row.items() if k != "log"))
    Console(width=180).print(table)


if __name__ == "__main__":
    main()
