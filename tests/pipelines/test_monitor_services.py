"""The monitor while models of two feature specs answer: each prediction is judged by its model's spec."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from test_deploy import HELD, PROGRAM, pack, report_of

from churn.settings import Settings, load_settings
from core.workspace import Workspace
from features.spec import FeaturesConfig
from monitoring.predictions import Predictions
from monitoring.vectors import compare
from pipelines.candidates import candidate_at
from pipelines.context import Context
from pipelines.monitor import sources_of
from pipelines.rollout import open_store
from pipelines.steps.data import compute_features
from rollout.state import Change
from support.feature_records import cdnow, write_transactions

AT = datetime(1998, 7, 1, tzinfo=UTC)
STABLE, CANARY = "0123456789ab", "cccccccccccc"
"""The version that `pack` gives, and one whose archive is not here: it has the configured spec."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A model of the shipped spec is stable; configured is one with another window under the same name."""
    log = cdnow()
    users = sorted(log["user_id"].unique())[:400]
    files = write_transactions(
        tmp_path / "ws", log[log["user_id"].isin(users)].assign(is_return=False), end=AT
    )
    before = load_settings(overrides=[f"workspace={files.root}"])
    gates = {"passed": True, "digest": report_of(PROGRAM, HELD).digest, "overrides": []}
    stable = candidate_at(pack(before, gates, spec=before.features.contract(), online="sqlite"))
    open_store(before).served_at_once("churn", Change(stable, None, "ada", AT, "a test"))
    content = before.features.model_dump(mode="json", exclude={"view", "derived_view"})
    for feature in content["features"]:
        if feature["name"] == "spend_30d":
            feature["sql"] = "sum(amount) filter (age_days <= 7)"
    content["features"] = [one for one in content["features"] if one["name"] != "orders_14d"]
    after = FeaturesConfig.model_validate(content | {"service": "churn_prediction_v2"})
    changed = before.model_copy(update={"features": after})
    compute_features(Context(changed, AT, lambda message: None))
    return changed


def log_predictions(settings: Settings, files: Workspace, spec: FeaturesConfig, version: str) -> None:
    """A prediction for each customer of the newest snapshot of a service, as the log has them."""
    rows = pq.read_table(files.snapshots).to_pandas()
    rows = rows[rows["event_timestamp"] == rows["event_timestamp"].max()]
    for ratio in spec.derived:
        rows[ratio.name] = rows[ratio.numerator] / rows[ratio.denominator].clip(lower=ratio.floor)
    names = [*spec.numeric, *spec.categorical]
    logged = pd.DataFrame({f"feature_{name}": rows[name] for name in names}).assign(
        user_id=rows["user_id"], features_at=rows["event_timestamp"], model_version=version, status="ok",
        variant="stable" if version == STABLE else "canary", time=pd.Timestamp(AT - timedelta(hours=1)),
        overridden=[[] for _ in range(len(rows))],
    )  # fmt: skip
    folder = settings.files.predictions / f"date={AT - timedelta(days=1):%Y-%m-%d}"
    folder.mkdir(parents=True, exist_ok=True)
    logged.to_parquet(folder / f"{version}.parquet", index=False)


def differing(settings: Settings, version: str) -> dict[str, int]:
    """Feature -> customers for whom the log differs from the records, as `churn monitor` counts them."""
    sources = sources_of(settings, AT, version)
    predictions = Predictions.of(sources.predictions, sources.since, sources.at, sources.left_out)
    counts = compare(sources, predictions, sources.moments(), True, settings.monitoring)
    served = counts[counts["source"] == "served"]
    assert served["compared"].max() > 50
    return {row.feature: int(row.customers) for row in served.itertuples() if row.customers}


def test_each_version_is_compared_by_its_own_spec(settings: Settings) -> None:
    stable = sources_of(settings, AT, STABLE)
    canary = sources_of(settings, AT, CANARY)
    assert stable.spec.service == "churn_prediction_v1" and "orders_14d" in stable.used
    assert canary.spec.service == "churn_prediction_v2" and "orders_14d" not in canary.used
    for version, sources in ((STABLE, stable), (CANARY, canary)):
        log_predictions(settings, Workspace(settings.files.root) if version == CANARY else
                        stable_files(settings), sources.spec, version)  # fmt: skip
    assert differing(settings, STABLE) == {}
    assert differing(settings, CANARY) == {}
    assert sources_of(settings, AT, STABLE).left_out == {CANARY}

    # other values in the log of the stable version are found
    [segment] = settings.files.predictions.glob(f"*/{STABLE}.parquet")
    logged = pd.read_parquet(segment)
    logged.assign(feature_spend_30d=logged["feature_spend_30d"] + 1).to_parquet(segment, index=False)
    assert list(differing(settings, STABLE)) == ["spend_30d"]


def stable_files(settings: Settings) -> Workspace:
    from pipelines.services import service_of_version

    return service_of_version(settings, STABLE).files
