"""What cannot work with the shape of the source is refused when the settings are read."""

from pathlib import Path

import pytest

from churn.settings import load_settings
from core.errors import ConfigError

TABLE = """
data:
  shape: labelled
  observed_at: 2024-01-01T00:00:00Z
  source: {kind: csv, uri: a.csv, columns: {user_id: id, target: left}}
  expectations: []
features:
  features: [{name: age, dtype: float64}]
  derived: []
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    overlay = tmp_path / "table.yaml"
    overlay.write_text(TABLE)
    return overlay


def test_baselines_follow_the_shape(table: Path) -> None:
    log, labelled = load_settings(), load_settings(overlays=[table])

    assert "bg_nbd" in log.training.baselines_of(log.data.shape)
    assert labelled.training.baselines_of(labelled.data.shape) == (
        "base_rate",
        "logistic_regression",
        "random_forest",
        "gradient_boosting",
    )
    assert load_settings(overrides=["training.baselines=[base_rate]"]).training.baselines_of(
        "transactions"
    ) == ("base_rate",)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.baselines=[base_rate, bg_nbd]", r"training\.baselines: bg_nbd needs a transaction log"),
        ("model.purchase_process=true", r"model\.purchase_process: needs a transaction log"),
        (
            "tuning.space={model.purchase_process: {choices: [true, false]}}",
            r"tuning\.space\.model\.purchase_process",
        ),
        ("training.test_snapshots=2", r"training\.test_snapshots: .*set training\.test_share"),
        ("features.returns_count_as_life=true", r"features\.returns_count_as_life"),
        ("features.snapshots={every: week}", r"features\.snapshots"),
        ("features.features=[{name: age, dtype: float64, over: returns}]", r"features\.features\.age\.over"),
        ("data.source.returns=age < 0", r"data\.source\.returns"),
    ],
)
def test_a_table_takes_no_setting_of_a_log(table: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(overlays=[table], overrides=[override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.test_share=0.3", r"training\.test_share: is for labelled tables.*test_snapshots"),
        ("training.validation_share=0.3", r"training\.validation_share"),
        ("data.observed_at=2024-01-01T00:00:00Z", r"data\.observed_at"),
        ("model={purchase_process: true, purchase_columns: {age: nope}}", r"purchase_columns\.age: nope"),
    ],
)
def test_a_log_takes_no_setting_of_a_table(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_settings(overrides=[override])


def test_shipped_settings_are_accepted_for_both_shapes(table: Path) -> None:
    given = ["training.test_share=0.2", "training.test_snapshots=3", "model.purchase_process=false"]
    assert load_settings(overrides=given).data.shape == "transactions"
    assert load_settings(overlays=[table], overrides=given).data.shape == "labelled"
