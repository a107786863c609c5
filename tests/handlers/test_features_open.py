"""Opening the store: which stores are refused, which are read without Feast, and how long it takes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from handlers.bundle import BundleError
from handlers.store.config import read_store_config
from handlers.store.opening import open_features
from handlers.store.registry import service_tags
from support.served_bundle import REPOSITORY
from support.servers.online_stores import NOW, SPEC, FilledStore, bundle_of, filled_store

FULL = {"orders": 3, "spend": 12.5, "tenure": 0.25, "segment": "gold", "visits": 0, "town": "Oslo"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FilledStore:
    filled = filled_store(tmp_path_factory.mktemp("store"), {"type": "sqlite", "path": "online.db"})
    filled.write({"a": FULL})
    return filled


@pytest.fixture
def copy(store: FilledStore, tmp_path: Path) -> Path:
    return shutil.copytree(store.folder, tmp_path / "copy")


def yaml_of(folder: Path, old: str, new: str) -> None:
    file = folder / "feature_store.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_a_store_of_another_spec_is_refused(store: FilledStore) -> None:
    other = SPEC.model_copy(update={"on_stale": "refuse"})
    with pytest.raises(
        BundleError, match=r"FeatureService online_v1 carries spec_digest [0-9a-f]{12}, the model"
    ):
        open_features(store.folder, bundle_of(other))


def test_a_service_or_a_registry_that_is_not_there_is_refused(store: FilledStore, copy: Path) -> None:
    with pytest.raises(BundleError, match="no FeatureService online_v9 in its registry"):
        open_features(store.folder, bundle_of(SPEC.model_copy(update={"service": "online_v9"})))
    (copy / "registry.db").unlink()
    with pytest.raises(BundleError, match="no FeatureService online_v1 in its registry"):
        open_features(copy, bundle_of())
    assert not (copy / "registry.db").exists()


def test_a_service_of_another_project_is_not_used(copy: Path) -> None:
    yaml_of(copy, "project: tiny", "project: other")
    with pytest.raises(BundleError, match="no FeatureService online_v1"):
        open_features(copy, bundle_of())


def test_a_file_that_is_not_a_registry_is_refused(copy: Path) -> None:
    (copy / "registry.db").write_bytes(b"\x3f\xff not a registry")
    with pytest.raises(BundleError, match="its registry file is not one"):
        open_features(copy, bundle_of())


def test_an_unset_variable_is_reported_and_a_set_one_is_expanded(copy: Path) -> None:
    yaml_of(copy, "registry: registry.db", "registry: ${TINY_REGISTRY}")
    with pytest.raises(BundleError, match="the environment variable TINY_REGISTRY is not set"):
        open_features(copy, bundle_of(), {})
    assert open_features(copy, bundle_of(), {"TINY_REGISTRY": "registry.db"}).read(["a"], NOW).status == (
        "ok",
    )


@pytest.mark.parametrize("text", ["[1, 2]", "project: [", "project: tiny", "online_store: 3\nproject: a"])
def test_a_yaml_without_the_required_keys_is_refused(copy: Path, text: str) -> None:
    (copy / "feature_store.yaml").write_text(text)
    with pytest.raises(BundleError, match=r"feature_store\.yaml"):
        open_features(copy, bundle_of())


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan", ""])
def test_an_invalid_timeout_is_refused(store: FilledStore, value: str) -> None:
    with pytest.raises(BundleError, match="CHURN_STORE_TIMEOUT_MS"):
        open_features(store.folder, bundle_of(), {"CHURN_STORE_TIMEOUT_MS": value})


def test_a_registry_in_a_database_is_read_without_feast_too(store: FilledStore, tmp_path: Path) -> None:
    from feast.infra.registry.sql import SqlRegistry, SqlRegistryConfig

    from features.repo.definitions import define

    path = f"sqlite:///{tmp_path / 'registry.sqlite'}"
    registry = SqlRegistry(SqlRegistryConfig(registry_type="sql", path=path), "tiny", None)
    registry.apply_feature_service(define(SPEC, tmp_path / "none.parquet").service, "tiny")
    (tmp_path / "feature_store.yaml").write_text(
        f"project: tiny\nregistry: {{registry_type: sql, path: '{path}'}}\n"
        f"online_store: {{type: sqlite, path: '{store.database}'}}\nentity_key_serialization_version: 3\n"
    )
    assert service_tags(read_store_config(tmp_path, {}), SPEC.service) == {"spec_digest": SPEC.digest()}
    assert open_features(tmp_path, bundle_of()).read(["a"], NOW).status == ("ok",)
    with pytest.raises(BundleError, match="no FeatureService online_v2"):
        open_features(tmp_path, bundle_of(SPEC.model_copy(update={"service": "online_v2"})))
    yaml_of(tmp_path, str(tmp_path / "registry.sqlite"), str(tmp_path / "nowhere" / "registry.sqlite"))
    with pytest.raises(BundleError, match="its registry cannot be read: OperationalError"):
        open_features(tmp_path, bundle_of())


WITHOUT_FEAST = """
import sys
sys.modules["feast"] = None
sys.modules["sqlalchemy"] = None
import json
from pathlib import Path
from handlers.bundle import Bundle
from handlers.store.opening import open_features
from datetime import datetime
spec, folder, now = json.loads(sys.argv[1]), Path(sys.argv[2]), datetime.fromisoformat(sys.argv[3])
bundle = Bundle("1", Path("none"), "user_id", "string", spec, sys.argv[4], ("orders",), {}, 0.5)
print(open_features(folder, bundle).read(["a"], now).columns["spend_a_month"])
assert not {name.split(".")[0] for name in sys.modules} & {"pandas", "dask", "fastapi", "redis", "dill"}
"""


def test_a_worker_opens_and_reads_without_feast_and_runs_none_of_the_registry_s_code(
    store: FilledStore,
) -> None:
    import json

    arguments = [json.dumps(SPEC.contract()), str(store.folder), NOW.isoformat(), SPEC.digest()]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_FEAST, *arguments],
        cwd=REPOSITORY,
        env=dict(os.environ, PYTHONPATH=str(REPOSITORY)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[25.0]\n"), done.stderr
