from pathlib import Path

import pytest
import yaml

from churn.settings import CONFIGS, STAGES, load_settings, merge
from core.errors import ConfigError
from core.layers import expand, parse_override

EXAMPLES = sorted((CONFIGS.parent / "examples").glob("*.yaml"))
PRODUCTION = {
    "CHURN_WORKSPACE": "/srv/churn",
    "CHURN_SOURCE": "postgresql+psycopg://shop@db/shop",
    "CHURN_DATA_STORE": "s3://data/churn",
    "CHURN_PREDICTION_TOPIC": "kafka:9096/predictions",
    "CHURN_STREAM_BROKERS": "kafka:9096",
    "CHURN_STREAM_STATE": "postgresql+psycopg://stream@db/stream",
    "CHURN_BACKUP": "s3://backup/churn",
    "CHURN_MLFLOW_DATABASE": "postgresql+psycopg://mlflow@db/mlflow",
    "CHURN_REDIS": "redis.internal:6379",
    "CHURN_FEAST_REGISTRY": "postgresql+psycopg://feast@db/feast",
    "MLFLOW_TRACKING_URI": "http://mlflow:5000",
    "CHURN_ARTIFACTS": "s3://models/artifacts",
    "CHURN_OPTUNA_STORAGE": "postgresql+psycopg://optuna@db/optuna",
    "CHURN_ROLLOUT_TARGET": "knative",
    "CHURN_ROLLOUT_DATABASE": "postgresql+psycopg://churn@db/rollout",
    "CHURN_MODEL_STORE": "s3://models/churn",
    "CHURN_PROMETHEUS": "http://prometheus:9090",
}
URIS_AND_SIZES = {
    "workspace",
    "data.source",
    "data.store",
    "features.offline_store",
    "features.online_store",
    "features.registry",
    "features.memory_limit",
    "training.tracking_uri",
    "training.artifacts_uri",
    "tuning.storage",
    "tuning.trials",
    "tuning.workers",
    "serving.prediction_log_kafka",
    "serving.workers",
    "serving.heap",
    "backup.store",
    "backup.mlflow_database",
    "stream.brokers",
    "stream.state",
    "rollout.target",
    "rollout.database",
    "rollout.store",
    "rollout.health_address",
    "rollout.kserve",
}


def test_every_stage_has_a_file_and_every_file_a_stage() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(STAGES)
    assert load_settings().features.horizon_days == 90


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_shipped_examples_are_valid(example: Path) -> None:
    assert load_settings(overlays=[example]).data.source.kind != "cdnow"


@pytest.mark.parametrize("profile", ["local", "production"])
def test_profiles_change_addresses_and_sizes_only(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    content = yaml.safe_load((CONFIGS / "profiles" / f"{profile}.yaml").read_text())
    changed = {
        f"{stage}.{key}" if isinstance(keys, dict) else stage
        for stage, keys in content.items()
        for key in (keys if isinstance(keys, dict) else [None])
    }
    assert changed <= URIS_AND_SIZES
    settings = load_settings(profile)
    assert settings.features.digest() == load_settings().features.digest()


def test_production_names_a_missing_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CHURN_REDIS")
    with pytest.raises(ConfigError, match="environment variable CHURN_REDIS; export it"):
        load_settings("production")
    monkeypatch.delenv("CHURN_BACKUP")
    with pytest.raises(ConfigError, match="variables CHURN_REDIS, CHURN_BACKUP; export them"):
        load_settings("production")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epoch=2", r"training\.epoch: unknown key \(did you mean epochs\?\)"),
        ("training.epochs=-2", r"training\.epochs: .*greater than 0, not -2"),
        ("trainin.epochs=2", r"trainin: unknown key \(did you mean training\?\)"),
        ("data.source.kind=csv", r"data\.source\.uri: missing"),
        ("data.source.kind=kafka", r"data\.source"),
        ("training.epochs", "write it as key.path=value"),
        ("training.epochs={", "not YAML"),
        ("features.derived=[{name: r, numerator: nope, denominator: total_spend}]", "nope is not a numeric"),
        ("features.features=[{name: a, dtype: int64}]", "int64 cannot hold a null"),
        ("training.baselines=[oracle]", r"training\.baselines\.0"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(overrides=[override])
    assert "\n" not in str(caught.value)


def test_later_wins_and_another_kind_of_source_replaces_the_whole_source() -> None:
    settings = load_settings(overrides=["training.epochs=7", "training.epochs=8"])
    assert (settings.training.epochs, settings.training.test_snapshots) == (8, 3)
    under = {"source": {"kind": "csv", "uri": "a", "columns": {"x": "y"}}}
    assert merge(under, {"source": {"uri": "b"}})["source"]["columns"] == {"x": "y"}
    assert merge(under, {"source": {"kind": "cdnow"}}) == {"source": {"kind": "cdnow"}}
    redis = {"online_store": {"type": "redis", "connection_string": "cache:6379"}}
    assert merge({"online_store": {"type": "sqlite", "path": "online.db"}}, redis) == redis


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "not YAML"), ("- 1", "expected `key: value`"), (None, "No such file")]
)
def test_an_unreadable_overlay_is_named(text: str | None, message: str, tmp_path: Path) -> None:
    overlay = tmp_path / "mine.yaml"
    if text is not None:
        overlay.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(overlays=[overlay])
    assert str(overlay) in str(caught.value)


def test_the_workspace_is_inserted_into_addresses(tmp_path: Path) -> None:
    settings = load_settings(overrides=[f"workspace={tmp_path}"])
    assert settings.training.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert settings.files.records == tmp_path / "data" / "current" / "records"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/data/team #1", "/data/team #1"),
        ("/data/a: b", "/data/a: b"),
        ("[fd00::1]:6379,password=x", "[fd00::1]:6379,password=x"),
        ("cache:6379,password=p #q: $r", "cache:6379,password=p #q: $r"),
        ("'quoted # text'", "quoted # text"),
        ("{path: a}", {"path": "a"}),
        ("null", None),
    ],
)
def test_an_address_after_set_is_not_changed(value: str, expected: object) -> None:
    """YAML would end at ` #`, and read `: ` as a mapping and a bracket as a list."""
    assert parse_override(f"features.registry={value}") == {"features": {"registry": expected}}


def test_the_value_of_an_environment_variable_is_not_expanded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "a #b: ${OTHER}$HOME")
    monkeypatch.setenv("OTHER", "not this")
    assert expand({"at": ["x,${PASSWORD},${OTHER}"]}) == {"at": ["x,a #b: ${OTHER}$HOME,not this"]}
