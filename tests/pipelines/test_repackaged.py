"""Metrics of a cluster are labelled with the version, so a second archive of a program is no candidate."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from churn.settings import load_settings
from pipelines import rollout as pipeline
from pipelines.context import Context
from rollout.errors import RolloutError
from rollout.targets.target import Candidate

STABLE = Candidate("s3://models/churn/first", "a" * 64, "aaaaaaaaaaaa")
REPACKAGED = Candidate("s3://models/churn/again", "b" * 64, STABLE.version)
NEXT = Candidate("s3://models/churn/next", "c" * 64, "cccccccccccc")


def context(workspace: Path, target: str) -> Context:
    settings = load_settings(overrides=[f"workspace={workspace}", f"rollout.target={target}"])
    return Context(settings, datetime(2026, 3, 1, tzinfo=UTC), lambda line: None, "ada")


@pytest.fixture(autouse=True)
def stable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_stable_on_cluster", lambda context, store: STABLE)
    monkeypatch.setattr(pipeline, "_served_here", lambda settings, store: STABLE)


@pytest.mark.parametrize("target", ["knative", "standard"])
def test_a_repackaged_program_is_refused_on_a_cluster(tmp_path: Path, target: str) -> None:
    with pytest.raises(RolloutError, match="as another archive of the same program") as refused:
        pipeline.start(context(tmp_path, target), REPACKAGED, "packaged again")
    assert "train a model" in str(refused.value) and "\n" not in str(refused.value)
    assert pipeline.open_store(context(tmp_path, target).settings).current("churn") is None
    assert pipeline.start(context(tmp_path, target), NEXT, "a new model").candidate == NEXT


def test_on_this_machine_slots_distinguish_archives(tmp_path: Path) -> None:
    assert pipeline.start(context(tmp_path, "envoy"), REPACKAGED, "packaged again").candidate == REPACKAGED


def test_the_archive_that_is_stable_is_nothing_to_roll_out(tmp_path: Path) -> None:
    with pytest.raises(RolloutError, match="stable already; there is nothing to roll out"):
        pipeline.start(context(tmp_path, "knative"), STABLE, "once more")
