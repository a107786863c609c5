"""Aliases and the log of their changes, in a real database; a crash is an exception between two calls."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from churn.settings import Settings, load_settings
from core.errors import GateFailure, TrainingError
from training.config import TrainingConfig
from training.quiet import quiet
from training.registry.model_registry import LONGEST_VALUE, Registry

WHEN = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TrainingConfig:
    """A database with nothing in it; making one takes seconds."""
    folder = tmp_path_factory.mktemp("registry")
    return load_settings(overrides=[f"workspace={folder}"]).training


@pytest.fixture
def training(base: TrainingConfig, request: pytest.FixtureRequest) -> Iterator[TrainingConfig]:
    """A registered model of three versions: 1 and 2 passed the gates, 3 did not."""
    from mlflow import MlflowClient

    training = base.model_copy(update={"model_name": request.node.name})
    with quiet():
        client = MlflowClient(training.tracking_uri, training.tracking_uri)
        client.create_registered_model(training.model_name)
        for gates in ("passed", "overridden", "refused"):
            client.create_model_version(training.model_name, "nowhere", tags={"gates": gates})
    yield training


class CutShort(Registry):
    """Dies after so many aliases have been set or deleted."""

    def __init__(self, training: TrainingConfig, calls: int) -> None:
        super().__init__(training)
        self.left = calls

    @property
    def _client(self):
        client, mine = super()._client, self

        class Dying:
            def __getattr__(self, name: str):
                if name.endswith("_registered_model_alias"):
                    if mine.left == 0:
                        raise KeyboardInterrupt
                    mine.left -= 1
                return getattr(client, name)

        return Dying()


def test_no_database_is_no_champion_and_none_is_made(small: Settings, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    registry = Registry(small.training.model_copy(update={"tracking_uri": uri}))

    assert registry.champion() is None and registry.history() == [] and registry.versions() == []
    assert not (tmp_path / "mlflow.db").exists()


def test_the_log_tells_every_change_of_who_serves(training: TrainingConfig) -> None:
    registry = Registry(training)
    registry.challenge("1", "loop", WHEN, "gates passed", {"log_loss": 0.32, "auroc": float("nan")})
    registry.promote("1", "ada", WHEN + timedelta(days=1), "the first", {})
    registry.challenge("2", "loop", WHEN + timedelta(days=2), "gates passed", {})
    registry.promote("2", "ada", WHEN + timedelta(days=3), "two weeks\non trial", {"log_loss": 0.31})
    assert registry.aliases() == {"champion": "2", "previous": "1"}
    registry.rollback("bob", WHEN + timedelta(days=4), "calls rose")

    assert registry.aliases() == {"champion": "1"}
    assert registry.champion() == registry.version("1")
    history = Registry(training).history()
    assert [(d.action, d.version, d.who) for d in history] == [
        ("challenge", "1", "loop"), ("promote", "1", "ada"), ("challenge", "2", "loop"),
        ("promote", "2", "ada"), ("rollback", "1", "bob"),
    ]  # fmt: skip
    assert history[3].why == "two weeks on trial"
    assert history[3].when == "2026-11-25T12:00:00+00:00"
    assert history[3].before == {"previous": None, "champion": "1", "challenger": "2"}
    assert history[0].numbers == {"log_loss": 0.32}
    assert all(decision.applied for decision in history)
    with pytest.raises(TrainingError, match="no previous champion"):
        registry.rollback("bob", WHEN + timedelta(days=5), "again")


def test_a_repeated_decision_has_no_further_effect(training: TrainingConfig) -> None:
    registry = Registry(training)
    for hour in range(3):
        registry.challenge("1", "loop", WHEN + timedelta(hours=hour), "gates passed", {})
        registry.promote("1", "ada", WHEN + timedelta(hours=hour), "the first", {})

    assert [decision.action for decision in registry.history()] == ["challenge", "promote"]
    assert registry.aliases() == {"champion": "1"}


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_crash_between_two_steps_loses_no_champion_and_the_same_command_completes_it(
    training: TrainingConfig, after: int
) -> None:
    registry = Registry(training)
    registry.promote("1", "ada", WHEN, "the first", {})
    registry.challenge("2", "loop", WHEN, "gates passed", {})

    with pytest.raises(KeyboardInterrupt):
        CutShort(training, after).promote("2", "ada", WHEN, "better", {})
    assert registry.aliases()["champion"] == ("1" if after < 2 else "2")
    assert not registry.history()[-1].applied or after == 3
    decision = registry.promote("2", "ada", WHEN + timedelta(hours=1), "again", {})

    assert registry.aliases() == {"champion": "2", "previous": "1"}
    assert decision is not None and decision.why == "better"
    assert [(d.action, d.version, d.applied) for d in registry.history()].count(("promote", "2", True)) == 1


def test_a_crash_in_a_rollback_leaves_a_champion(training: TrainingConfig) -> None:
    registry = Registry(training)
    registry.promote("1", "ada", WHEN, "the first", {})
    registry.promote("2", "ada", WHEN + timedelta(days=1), "better", {})

    with pytest.raises(KeyboardInterrupt):
        CutShort(training, 1).rollback("bob", WHEN + timedelta(days=2), "worse")
    assert registry.aliases()["champion"] == "1"
    registry.rollback("bob", WHEN + timedelta(days=3), "worse")

    assert registry.aliases() == {"champion": "1"}
    assert [d.action for d in registry.history()] == ["promote", "promote", "rollback"]


def test_only_what_passed_the_gates_may_serve(training: TrainingConfig) -> None:
    registry = Registry(training)
    with pytest.raises(GateFailure, match="version 3: gates refused"):
        registry.promote("3", "ada", WHEN, "I like it", {})
    with pytest.raises(TrainingError, match="no version 9"):
        registry.promote("9", "ada", WHEN, "typo", {})
    with pytest.raises(TrainingError, match="give a --reason"):
        registry.promote("1", "ada", WHEN, "  ", {})
    with pytest.raises(TrainingError, match="too long"):
        registry.promote("1", "ada", WHEN, "x" * LONGEST_VALUE, {})
    assert registry.aliases() == {} and registry.history() == []
