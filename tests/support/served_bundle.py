"""A small but real bundle, feature store and archive, made once a test run and shared by its workers.

205 customers: ids 1..200 are fresh at NOW, 201..205 are older than the ttl. Every seventh has no average
purchase amount, every fifth a segment that the network never saw.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from core.workspace import Workspace
from features.spec import Feature, FeaturesConfig, Ratio
from handlers.identity import key_check, mask

KEY = b"a key for tests only, of 32 bytes and more"
NOW = datetime(1998, 7, 1, tzinfo=UTC)
FRESH, STALE = range(1, 201), range(201, 206)
UNKNOWN = 999
SEGMENTS = ("gold", "silver")
SPEC = FeaturesConfig(
    service="tiny_v1",
    ttl_days=35,
    features=(
        Feature(name="total_purchases", dtype="int64", default=0, description="purchases so far"),
        Feature(name="avg_purchase_amount", dtype="float64"),
        Feature(name="tenure_months", dtype="float64"),
        Feature(name="customer_segment", dtype="string"),
    ),
    derived=(Ratio(name="purchase_frequency", numerator="total_purchases", denominator="tenure_months"),),
)
REFERENCE = {
    "total_purchases": 25,
    "avg_purchase_amount": 33.5,
    "tenure_months": 9.0,
    "customer_segment": "gold",
}
REPOSITORY = Path(__file__).resolve().parents[2]
FEATURE_STORE = """\
project: tiny
provider: local
registry: ${CHURN_FEAST_REGISTRY}
online_store: {type: sqlite, path: "${CHURN_FEAST_ONLINE}"}
offline_store: {type: file}
entity_key_serialization_version: 3
"""


@dataclass(frozen=True)
class ServedBundle:
    root: Path

    @property
    def model_dir(self) -> Path:
        """What TorchServe unpacks the archive to."""
        return self.root / "model"

    @property
    def archive(self) -> Path:
        return self.root / "model-store" / "tiny.mar"

    @property
    def store_environment(self) -> dict[str, str]:
        return {
            "CHURN_FEAST_REGISTRY": str(self.root / "registry.db"),
            "CHURN_FEAST_ONLINE": str(self.root / "online.db"),
        }

    @property
    def environment(self) -> dict[str, str]:
        """What the handler needs, with a clock that shows NOW."""
        offset = NOW - datetime.now(UTC)
        return {
            **self.store_environment,
            "CHURN_MASK_KEY": KEY.decode(),
            "CHURN_CLOCK_OFFSET_S": str(offset.total_seconds()),
        }

    @property
    def customers(self) -> pd.DataFrame:
        return pd.read_parquet(self.root / "customers.parquet")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> ServedBundle:
    base = tmp_path_factory.getbasetemp()
    made = ServedBundle((base if worker_id == "master" else base.parent) / "served-bundle")
    with FileLock(f"{made.root}.lock"):
        if not made.root.exists():
            _make(made)
    return made


def changed_archive(bundle: ServedBundle, folder: Path, **changes: object) -> Path:
    """The same archive with other values in its bundle.json."""
    model_dir = shutil.copytree(bundle.model_dir, folder / "model")
    path = model_dir / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return make_archive(model_dir, folder / "model-store" / "tiny.mar")


def files_of(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "var")


def _make(made: ServedBundle) -> None:
    staged = ServedBundle(Path(f"{made.root}.staged"))
    staged.model_dir.mkdir(parents=True)
    from support.served_network import (
        export,  # imports torch, which most tests that read this file do not need
    )

    export(staged.model_dir / "model.pt2", SPEC.numeric, len(SEGMENTS))
    (staged.model_dir / "feature_store.yaml").write_text(FEATURE_STORE)
    (staged.model_dir / "bundle.json").write_text(json.dumps(_bundle_json(staged.model_dir / "model.pt2")))
    modules = shutil.copytree(
        REPOSITORY / "handlers", staged.model_dir / "handlers", ignore=shutil.ignore_patterns("__pycache__")
    )
    (modules / "churn_handler.py").rename(staged.model_dir / "churn_handler.py")
    make_archive(staged.model_dir, staged.archive)
    # Feast writes absolute paths into its registry: made at the final place, and last
    staged.root.rename(made.root)
    try:
        _materialize(made)
    except BaseException:  # a folder that is there counts as complete
        shutil.rmtree(made.root)
        raise


def _bundle_json(program: Path) -> dict[str, object]:
    return {
        "schema_version": 1,
        "model_name": "churn-prediction",
        "model_version": "0123456789ab",
        "run_id": "run",
        "git_sha": "sha",
        "program": {"file": program.name, "sha256": hashlib.sha256(program.read_bytes()).hexdigest()},
        "entity": {"join_key": "user_id", "id_type": "integer", "key_check": key_check(KEY)},
        "spec": SPEC.contract(),
        "spec_digest": SPEC.digest(),
        "numeric": list(SPEC.numeric),
        "vocabulary": {"customer_segment": list(SEGMENTS)},
        "threshold": 0.5,
        "reference": REFERENCE,
        "data_sha256": "0" * 64,
        "gates": {"passed": True, "digest": "0" * 64},
        "window": {"start": "1997-01-01T00:00:00+00:00", "end": "1998-07-01T00:00:00+00:00"},
    }


def make_archive(model_dir: Path, archive: Path) -> Path:
    """Put `model_dir` into `archive` with torch-model-archiver."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    extra = archive.parent.parent / "extra"
    # a folder given as an extra file is unpacked into the archive's root, so that its sub-folders survive
    shutil.copytree(model_dir, extra, ignore=shutil.ignore_patterns("model.pt2", "churn_handler.py"))
    scratch = archive.parent.parent / "archiver"
    scratch.mkdir()
    options = {
        "--model-name": archive.stem,
        "--version": "1.0",
        "--handler": model_dir / "churn_handler.py",
        "--serialized-file": model_dir / "model.pt2",
        "--extra-files": extra,
        "--export-path": archive.parent,
    }
    command = [sys.executable, "-m", "model_archiver.model_packaging"]
    command += [str(part) for option in options.items() for part in option]
    # the archiver works in TMPDIR/<model name>, whoever else is at it
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "TMPDIR": str(scratch)})
    shutil.rmtree(extra)
    return archive


def _customers() -> pd.DataFrame:
    numbers = np.random.default_rng(0)
    ids = [*FRESH, *STALE]
    table = pd.DataFrame(
        {
            "user_id": [mask(str(i), KEY) for i in ids],
            "event_timestamp": [NOW - timedelta(days=60 if i in STALE else 1) for i in ids],
            "total_purchases": numbers.integers(1, 50, len(ids)),
            "avg_purchase_amount": np.where(
                np.arange(len(ids)) % 7 == 0, np.nan, numbers.gamma(2, 20, len(ids))
            ),
            "tenure_months": numbers.uniform(0, 18, len(ids)),
            "customer_segment": [("gold", "silver", "gold", "silver", "unheard of")[i % 5] for i in ids],
        }
    )
    return table.assign(created_timestamp=table["event_timestamp"])


def _materialize(made: ServedBundle) -> None:
    from feast import (
        Entity,
        FeatureService,
        FeatureStore,
        FeatureView,
        Field,
        FileSource,
        ValueType,
    )
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Float64, Int64, String

    import features.lean_feast  # noqa: F401  imports Feast in a third of the time
    from features import packing

    customers = made.root / "customers.parquet"
    _customers().to_parquet(customers)
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    types = {"int64": Int64, "float64": Float64, "string": String}
    view = FeatureView(
        name="user_features",
        entities=[user],
        ttl=SPEC.ttl,
        schema=[Field(name=f.name, dtype=types[f.dtype]) for f in SPEC.features],
        source=FileSource(
            path=str(customers),
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        ),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        @on_demand_feature_view(
            sources=[view], schema=[Field(name="purchase_frequency", dtype=Float64)], mode="python"
        )
        def user_derived(inputs: dict) -> dict:
            pairs = zip(inputs["total_purchases"], inputs["tenure_months"], strict=True)
            return {
                "purchase_frequency": [None if n is None or m is None else n / max(m, 1.0) for n, m in pairs]
            }

        service = FeatureService(
            name=SPEC.service, features=[view, user_derived], tags={"spec_digest": SPEC.digest()}
        )
        config = FEATURE_STORE
        for name, value in made.store_environment.items():
            config = config.replace(f"${{{name}}}", value)
        repository = made.root / "repo"
        repository.mkdir()
        (repository / "feature_store.yaml").write_text(config)
        store = FeatureStore(repo_path=str(repository))
        store.apply([user, view, user_derived, service])
        store.materialize(NOW - timedelta(days=400), NOW, feature_views=[view.name])
    # as `churn features materialize` leaves it
    place = (Path(made.store_environment["CHURN_FEAST_ONLINE"]), f"{store.project}_{view.name}")
    stored = [(feature.name, feature.dtype) for feature in SPEC.features]
    packing.prepare(*place, stored)
    packing.pack(*place, stored)
