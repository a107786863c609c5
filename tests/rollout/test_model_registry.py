"""Champion and previous follow what is stable, in a real registry, whatever moved them before."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from churn.commands.registry import _writing
from churn.settings import Settings, load_settings
from rollout.errors import RolloutError
from rollout.registry import ModelRegistry, locked_by
from rollout.state import Change
from rollout.store import Store
from rollout.targets.target import Candidate
from training.quiet import quiet
from training.registry.model_registry import Registry

WHEN = datetime(2026, 3, 1, tzinfo=UTC)
A, B, C = (Candidate(f"/{name}.mar", name * 64, name * 12) for name in "abc")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(overrides=[f"workspace={tmp_path_factory.mktemp('registry')}"])


@pytest.fixture
def registry(settings: Settings, request: pytest.FixtureRequest) -> Iterator[ModelRegistry]:
    """Of versions 1, 2 and 3, whose archives are A, B and C."""
    from mlflow import MlflowClient

    training = settings.training.model_copy(update={"model_name": request.node.name})
    with quiet():
        client = MlflowClient(training.tracking_uri, training.tracking_uri)
        client.create_registered_model(training.model_name)
        for candidate in (A, B, C):
            tags = {"gates": "passed", "archive_sha256": candidate.sha256}
            client.create_model_version(training.model_name, "nowhere", tags=tags)
    yield ModelRegistry(training)


def follow(registry: ModelRegistry, stable: Candidate, previous: Candidate | None = None) -> str:
    return registry.follow(Change(stable, previous, "rollout r", WHEN, "because"), {"seconds": 3.0})


def test_a_rollout_that_is_taken_back_names_what_serves_whichever_was_champion_before(
    registry: ModelRegistry,
) -> None:
    """Serve A; a rehearsal makes B the champion; C is rolled out after A and taken back."""
    follow(registry, A)
    follow(registry, B, A)  # what a rehearsal did once
    follow(registry, C, A)
    assert registry._registry.aliases() == {"champion": "3", "previous": "1"}
    assert follow(registry, A) == "version 1 is the champion now"
    assert registry._registry.aliases() == {"champion": "1"}
    assert [(d.action, d.version) for d in registry._registry.history()] == [
        ("promote", "1"), ("promote", "2"), ("promote", "3"), ("rollback", "1"),
    ]  # fmt: skip


def test_nothing_is_written_where_aliases_agree_and_an_unknown_archive_is_reported(
    registry: ModelRegistry,
) -> None:
    follow(registry, B, A)
    written = len(registry._registry.history())
    assert follow(registry, B, A) == "version 2 is the champion"
    assert len(registry._registry.history()) == written
    stranger = Candidate("/d.mar", "d" * 64, "d" * 12)
    assert "no version has archive dddddddddddd" in follow(registry, stranger)
    assert registry._registry.aliases()["champion"] == "2"


def test_writers_take_turns(tmp_path: Path) -> None:
    store, order = Store(f"sqlite:///{tmp_path}/rollout.db"), []

    def write(name: str) -> None:
        with locked_by(store, "churn", lambda: datetime.now(UTC)):
            order.append(f"{name} in")
            time.sleep(0.2)
            order.append(f"{name} out")

    threads = [threading.Thread(target=write, args=(name,)) for name in "xy"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [step.partition(" ")[2] for step in order] == ["in", "out", "in", "out"]


def test_a_command_cannot_name_a_champion_that_does_not_serve(
    settings: Settings, registry: ModelRegistry
) -> None:
    known: Registry = registry._registry
    with _writing(settings, known, "2"):
        """Nothing is recorded as stable yet: the champion serves first."""
    Store(settings.rollout.database).served_at_once("churn", Change(A, None, "ada", WHEN, "by hand"))
    with _writing(settings, known, "1"):
        """It is what serves."""
    with (
        pytest.raises(RolloutError, match="not by version 2"),
        _writing(settings, known, "2"),
    ):
        raise AssertionError("not reached")
