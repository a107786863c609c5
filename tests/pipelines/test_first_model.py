"""The first `churn deploy` on a cluster whose manifests name no model."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from churn.settings import load_settings
from pipelines import rollout
from pipelines.context import Context
from rollout.errors import RolloutError
from rollout.targets.kserve.standard import Standard
from rollout.targets.target import NotYet
from support.kube import standard
from support.kube.api_server import ApiServer, Object
from support.kube.cluster import FIRST, SECOND, THIRD, client, cluster, config, service


def empty() -> Object:
    content = service("Standard", marked=False)
    content["spec"]["predictor"].pop("name")
    content["spec"]["predictor"]["model"].pop("storageUri")
    return content


@pytest.fixture
def context(tmp_path: Path) -> Context:
    given = [f"workspace={tmp_path}", "rollout.target=standard", "rollout.ready_timeout_s=0.5"]
    settings = load_settings(overrides=given)
    return Context(settings, datetime(2026, 3, 1, tzinfo=UTC), lambda message: None, "ada")


@pytest.fixture
def kserve() -> standard.Standard:
    return standard.Standard()


@pytest.fixture
def server(kserve: standard.Standard, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with cluster(kserve, empty()) as running:
        target = Standard(config(timeout_s=0.2), client(running))
        monkeypatch.setattr(rollout, "open_target", lambda _: target)
        yield running


def test_it_serves_and_is_recorded_as_stable(
    context: Context, server: ApiServer, kserve: standard.Standard
) -> None:
    assert rollout.begin(context, FIRST, "first")
    assert kserve.traffic[-1] == {FIRST.archive: 100}
    assert rollout.open_store(context.settings).stable("churn") == FIRST
    assert not rollout.begin(context, SECOND, "a rollout brings this one")
    assert kserve.traffic[-1] == {FIRST.archive: 100}


def test_one_that_does_not_start_is_not_recorded_and_another_may_follow(
    context: Context, server: ApiServer, kserve: standard.Standard
) -> None:
    kserve.ready_after = lambda uri: None if uri == FIRST.archive else 1
    with pytest.raises(NotYet, match="0 of 1 pods available"):
        rollout.begin(context, FIRST, "first")
    assert rollout.open_store(context.settings).stable("churn") is None
    assert rollout.begin(context, SECOND, "mended")
    assert rollout.open_store(context.settings).stable("churn") == SECOND


def test_a_second_deploy_waits_for_the_end_of_the_first_one_s_rollout(
    context: Context, server: ApiServer, kserve: standard.Standard
) -> None:
    """Its canary is not taken for one of no rollout, whose remedy would end it."""
    assert rollout.begin(context, FIRST, "first")
    rollout.start(context, SECOND, "second")
    rollout.open_target(context.settings.rollout).deploy(SECOND)
    with pytest.raises(RolloutError, match="is running; wait for its end"):
        rollout.start(context, THIRD, "third")


def test_what_serves_already_is_not_replaced_at_once(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster(standard.Standard()) as running:
        target = Standard(config(), client(running))
        monkeypatch.setattr(rollout, "open_target", lambda _: target)
        assert not rollout.begin(context, SECOND, "second")
        assert target.observe().stable == FIRST.sha256
