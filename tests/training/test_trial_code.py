"""A study of other code is another study; code that decides no trial starts none anew."""

import shutil
from pathlib import Path

import pytest

from training.tuning import trial_code
from training.tuning.trial_code import FIRST, ROOMS, ROOT, code_of_a_trial, imported


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(trial_code, "ROOT", tmp_path)
    return tmp_path


def test_what_a_trial_imports_decides_it() -> None:
    found = imported(FIRST)

    assert {
        "training.learn.fit",
        "training.learn.module",
        "model.network",
        "model.wide",
        "handlers.scoring.encoding",
    } <= found
    assert not {m for m in found if m.startswith(("training.gates", "training.release"))}


@pytest.mark.parametrize(
    ("file", "other"),
    [
        ("model/network.py", True),
        ("training/learn/module.py", True),
        ("training/learn/recipe.py", True),
        ("training/release/model_card.py", False),
        ("training/gates/floors.py", False),
    ],
)
def test_a_change_of_code_is_another_study(copied: Path, file: str, other: bool) -> None:
    digest = code_of_a_trial.__wrapped__
    before = digest()
    (copied / file).write_text((copied / file).read_text() + "\nCHANGED = 1\n")

    assert (digest() != before) is other


def test_another_torch_is_another_study(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_of_a_trial.__wrapped__()
    monkeypatch.setattr(trial_code, "version", lambda library: "9.9" if library == "torch" else "1")

    assert code_of_a_trial.__wrapped__() != before
