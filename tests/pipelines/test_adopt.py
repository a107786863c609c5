"""The first rollout on a cluster has a way back: what serves is found out, verified and recorded."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from test_deploy import HELD, PROGRAM, VERSION, deployed, pack, report_of

from churn.settings import Settings, load_settings
from pipelines.adopt import adopted
from pipelines.context import Context
from pipelines.rollout import open_store
from rollout.errors import RolloutError
from rollout.reconcile import differs
from rollout.targets.kserve.standard import Standard
from rollout.targets.target import Candidate
from support.kube import standard
from support.kube.cluster import client, cluster, config, service
from training.gates import write_report

NEXT = Candidate("s3://models/churn/next", "f" * 64, "ffffffffffff")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A workspace whose newest archive passed its gates."""
    settings: Settings = load_settings(overrides=[f"workspace={tmp_path / 'ws'}"])
    report = report_of(PROGRAM, HELD)
    write_report(report, settings.files)
    pack(settings, {"passed": True, "digest": report.digest, "overrides": []})
    return Context(settings, datetime(2026, 3, 1, tzinfo=UTC), lambda message: None, "ada")


def serving(uri: str) -> dict[str, object]:
    content = service("Standard", marked=False)
    content["spec"]["predictor"]["model"]["storageUri"] = uri
    return content


def test_what_an_overlay_has_served_since_the_first_day_is_where_the_first_rollout_goes_back_to(
    context: Context, tmp_path: Path
) -> None:
    done = deployed(context.settings, str(tmp_path / "store"))  # type: ignore[arg-type]
    store = open_store(context.settings)
    with cluster(standard.Standard(), serving(done.uri), schemas=False) as server:
        target = Standard(config(), client(server))
        assert target.observe().unmarked == done.uri
        first = adopted(context, store, target, "served when the first rollout began")
        assert first == Candidate(done.uri, done.candidate.sha256, VERSION)
        assert store.stable("churn") == first

        target.deploy(NEXT)
        target._cluster.wait(lambda: target.observe().detail or None, 5, "ready")
        target.promote(NEXT)
        assert target.observe().stable == NEXT.sha256
        # the store of the test is a folder, from which no cluster could load
        back = replace(first, archive="s3://models/churn/first")
        target.restore(back)
        assert target.observe().stable == first.sha256
        assert differs(back, target.observe()) == ""


def test_what_cannot_be_read_back_is_named_by_a_copy_of_it(context: Context) -> None:
    store = open_store(context.settings)
    (archive,) = context.files.model_store.glob("*.mar")
    with cluster(standard.Standard(), serving("file:///nowhere/churn/first"), schemas=False) as server:
        target = Standard(config(), client(server))
        with pytest.raises(RolloutError, match=r"churn rollout adopt --archive FILE"):
            adopted(context, store, target, "x")
        found = adopted(context, store, target, "deployed by hand", archive)
        assert found.archive == "file:///nowhere/churn/first" and found.version == VERSION
        assert store.stable("churn") == found
        newest = store.newest("churn")
        assert newest is not None and (newest.by, newest.outcome) == ("ada", "deployed by hand")


def test_a_target_that_serves_nothing_yet_is_an_error(context: Context) -> None:
    with cluster(standard.Standard(), serving(""), schemas=False) as server:
        target = Standard(config(), client(server))
        with pytest.raises(RolloutError, match="serves nothing yet"):
            adopted(context, open_store(context.settings), target, "x")
