"""Which archive `churn serve` takes, and whose champion a canary at the end of `churn run` may change."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from test_deploy import HELD, PROGRAM, pack, report_of

from churn.settings import Settings, load_settings
from pipelines.candidates import candidate_at
from pipelines.context import Context
from pipelines.rehearsal import _registry
from pipelines.rollout import open_store
from pipelines.served import Served
from rollout.registry import ModelRegistry, OthersRegistry
from rollout.state import Change
from rollout.targets.target import Candidate

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(overrides=[f"workspace={tmp_path / 'ws'}"])


def repacked(settings: Settings, run: str) -> Candidate:
    """The same model in another archive, which is what was packaged last then."""
    gates = {"passed": True, "digest": report_of(PROGRAM, HELD).digest, "overrides": [], "run": run}
    pack(settings, gates, online="sqlite")
    (archive,) = settings.files.model_store.glob("*.mar")
    return candidate_at(archive)


def stable(settings: Settings) -> Candidate:
    found = open_store(settings).stable(settings.serving.model_name)
    assert found is not None
    return found


def test_the_first_start_is_recorded_and_packaging_anew_does_not_change_what_serves(
    settings: Settings,
) -> None:
    first = repacked(settings, "one")
    served = candidate_at(Served(settings, "ada", NOW)())
    assert served.sha256 == first.sha256 == stable(settings).sha256
    second = repacked(settings, "two")
    assert second.sha256 != first.sha256
    assert candidate_at(Served(settings, "ada", NOW)()).sha256 == first.sha256


def test_a_change_is_recorded_when_it_serves_and_can_be_taken_back(settings: Settings) -> None:
    first = repacked(settings, "one")
    served = Served(settings, "ada", NOW)
    served()
    second = repacked(settings, "two")
    archive = served()
    assert stable(settings).sha256 == first.sha256
    served.changed(archive, "bob", NOW + timedelta(hours=1))
    assert stable(settings).sha256 == second.sha256
    before = open_store(settings).reversible(settings.serving.model_name)
    assert before is not None and before.previous is not None and before.previous.sha256 == first.sha256
    assert before.by == "bob"


def test_what_is_stable_is_found_wherever_it_lies_and_its_loss_is_recorded(
    settings: Settings,
    tmp_path: Path,
) -> None:
    first = repacked(settings, "one")
    archive = Served(settings, "ada", NOW)()
    next(settings.files.model_store.glob("*.mar")).unlink()
    moved = settings.files.model_store / "elsewhere"
    shutil.move(archive.parent, moved)
    assert Served(settings, "ada", NOW)().parent == moved
    shutil.rmtree(moved)
    second = repacked(settings, "two")
    later = NOW + timedelta(hours=1)
    assert candidate_at(Served(settings, "ada", later)()).sha256 == second.sha256 == stable(settings).sha256
    newest = open_store(settings).newest(settings.serving.model_name)
    assert newest is not None and first.sha256[:12] in newest.reason


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [("sqlite:///{root}/mlflow.db", True), ("sqlite:////srv/mlflow.db", False), ("http://mlflow:80", False)],
)
def test_a_rehearsal_changes_no_registry_that_others_share(
    settings: Settings,
    uri: str,
    allowed: bool,
) -> None:
    training = settings.training.model_copy(update={"tracking_uri": uri.format(root=settings.files.root)})
    context = Context(settings.model_copy(update={"training": training}), NOW, lambda message: None, "ada")
    assert isinstance(_registry(context, None), ModelRegistry if allowed else OthersRegistry)
    served = _registry(replace(context), Candidate("a", "b" * 64, "c" * 12))
    assert isinstance(served, OthersRegistry)
    state = served.follow(Change(Candidate("x", "y" * 64, "z" * 12), None, "me", NOW, "why"), {})
    assert state == "the registry is left as it is: version cccccccccccc serves customers"
