"""What a user gives wins over what a study has found, and is not searched."""

import json
from datetime import UTC, datetime
from pathlib import Path

from churn.settings import load_settings
from model.config import ModelConfig
from pipelines.context import Context
from pipelines.steps.settings import chosen, searched
from training.config import TrainingConfig

FOUND = {"training.learning_rate": 0.001, "training.weight_decay": 0.05, "model.dropout": 0.2}


def context_with(folder: Path, *overrides: str, overlays: tuple[Path, ...] = ()) -> Context:
    settings = load_settings(overlays=overlays, overrides=[f"workspace={folder}", *overrides])
    settings.files.tuned.write_text(json.dumps({"parameters": FOUND}))
    return Context(settings, datetime(2024, 1, 1, tzinfo=UTC), lambda text: None)


def values(context: Context) -> tuple[ModelConfig, TrainingConfig]:
    settings = chosen(context)
    return settings.model, settings.training


def test_values_of_the_study_are_used_where_none_is_given(tmp_path: Path) -> None:
    model, training = values(context_with(tmp_path))
    assert (training.learning_rate, training.weight_decay, model.dropout) == (0.001, 0.05, 0.2)


def test_a_given_value_wins_over_the_study(tmp_path: Path) -> None:
    context = context_with(tmp_path, "training.learning_rate=0.01")
    model, training = values(context)
    assert (training.learning_rate, training.weight_decay, model.dropout) == (0.01, 0.05, 0.2)
    assert set(searched(context).space) == FOUND.keys() - {"training.learning_rate"}


def test_a_value_of_an_overlay_is_given_and_null_is_not(tmp_path: Path) -> None:
    overlay = tmp_path / "mine.yaml"
    overlay.write_text("model: {dropout: 0.4}\ntraining: {weight_decay: null}\n")
    model, training = values(context_with(tmp_path, overlays=(overlay,)))
    assert (model.dropout, training.weight_decay) == (0.4, 0.05)


def test_with_nothing_left_to_search_there_are_no_trials(tmp_path: Path) -> None:
    given = ("training.learning_rate=0.01", "training.weight_decay=0.1", "model.dropout=0.3")
    assert searched(context_with(tmp_path, *given)).trials == 0


def test_a_number_of_trials_in_the_stage_s_own_file_counts(tmp_path: Path) -> None:
    """No profile repeats a value of a stage's file: editing that file would then have no effect."""
    import shutil

    from core.layers import CONFIGS

    configs = tmp_path / "configs"
    shutil.copytree(CONFIGS, configs)
    file = configs / "tuning.yaml"
    file.write_text("trials: 30\n" + file.read_text())
    assert load_settings(configs=configs).tuning.trials == 30
