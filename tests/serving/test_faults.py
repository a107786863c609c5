"""Faults of the real processes: the answers during the fault and after it (docs/serving.md, Faults)."""

import os
import resource
import shutil
import signal
import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from core.errors import ArchiveError, ServingError
from handlers import telemetry
from handlers.records.log import TAKE_EVERY_S
from serving.config import ServingConfig
from serving.torchserve.server import TorchServe
from support.served_bundle import FRESH, ServedBundle, changed_archive, files_of, make_archive
from support.servers.redis_servers import RedisServer, redis_server
from support.servers.under_fault import Clients, acknowledged, logged, under_fault
from support.waits import within
from training.archive.signing import read_signers, sign, trust_line
from training.archive.verify import verify_archive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BACK_WITHIN_S = 60
"""A worker starts in about 5 s on an idle machine; the machine of a test is not idle."""
REFUSED_WITHIN_S = 2.0


def test_kill_9_of_the_worker(bundle: ServedBundle, tmp_path: Path) -> None:
    with under_fault(bundle, tmp_path) as served:
        with Clients(served.url) as clients:
            within(30, lambda: len(clients.answers) > 200)
            killed, first = time.monotonic(), served.worker()
            first.kill()
            served.wait_for(200, BACK_WITHIN_S)
            seen = len(clients.answers)
            within(30, lambda: len(clients.answers) > seen + 200)
        assert served.worker().pid != first.pid
        assert refusals_are_documented(clients)
        assert clients.answers[-1].status == 200
    acknowledged_at = acknowledged(clients.answers)
    lost = set(acknowledged_at) - set(logged(served.log))
    # at most the records that the log's writer got in the window before the kill
    assert all(killed - TAKE_EVERY_S - 1 < acknowledged_at[request_id] < killed + 0.5 for request_id in lost)


def test_kill_9_of_the_jvm(bundle: ServedBundle, tmp_path: Path) -> None:
    with under_fault(bundle, tmp_path) as served:
        with Clients(served.url) as clients:
            within(30, lambda: len(clients.answers) > 200)
            killed, first, worker = time.monotonic(), served.jvm, served.worker()
            os.kill(first, signal.SIGKILL)
            within(BACK_WITHIN_S, lambda: served.jvm != first)
            served.wait_for(200, BACK_WITHIN_S)
            seen = len(clients.answers)
            within(30, lambda: len(clients.answers) > seen + 200)
        assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
        assert refusals_are_documented(clients)
        assert clients.answers[-1].status == 200
    acknowledged_at = acknowledged(clients.answers)
    lost = set(acknowledged_at) - set(logged(served.log))
    assert all(killed - TAKE_EVERY_S - 1 < acknowledged_at[request_id] < killed + 0.5 for request_id in lost)


def test_an_orderly_stop_loses_no_record(bundle: ServedBundle, tmp_path: Path) -> None:
    with (
        under_fault(bundle, tmp_path) as served,
        Clients(served.url) as clients,
    ):
        within(30, lambda: len(clients.answers) > 500)
    assert clients.statuses() == {200}
    assert sorted(logged(served.log)) == sorted(acknowledged(clients.answers))


def test_kill_9_of_redis(bundle: ServedBundle, tmp_path: Path) -> None:
    with store_in_redis(bundle, tmp_path) as (cache, archive, environment):
        with under_fault(bundle, tmp_path, lambda: archive, **environment) as served:
            assert served.one(1).status == 200
            with Clients(served.url, number=1) as clients:
                within(30, lambda: len(clients.answers) > 20)
                cache.stop()
                # for customers that this worker has read before, it answers with the last known values;
                # others are a 503
                within(30, lambda: served.one(1).body.get("status") == "degraded")
                begun = time.monotonic()
                stranger = served.one(FRESH[-1])
                assert (stranger.status, stranger.body["code"]) == (503, telemetry.STORE_DOWN)
                assert stranger.retry_after is not None
                assert time.monotonic() - begun < REFUSED_WITHIN_S
                cache.start()
                within(30, lambda: served.one(1).body.get("status") == "ok")
            assert refusals_are_documented(clients)
            served.wait_for(200, 5, FRESH[-1])
        assert set(acknowledged(clients.answers)) <= set(logged(served.log))


def test_redis_is_suspended_for_5_seconds(bundle: ServedBundle, tmp_path: Path) -> None:
    with (
        store_in_redis(bundle, tmp_path) as (cache, archive, environment),
        under_fault(bundle, tmp_path, lambda: archive, **environment) as served,
    ):
        assert served.one(1).status == 200
        cache.process.suspend()
        try:
            ended = time.monotonic() + 5
            while time.monotonic() < ended:
                begun = time.monotonic()
                known, stranger = served.one(1), served.one(FRESH[-1])
                assert time.monotonic() - begun < 2 * REFUSED_WITHIN_S
                assert (known.status, known.body["status"]) == (200, "degraded")
                assert (stranger.status, stranger.body["code"]) == (503, telemetry.STORE_DOWN)
                assert stranger.retry_after is not None
        finally:
            cache.process.resume()
        assert served.wait_for(200, 10, FRESH[-1]) < 5
        within(30, lambda: served.one(1).body["status"] == "ok")


def test_sqlite_is_locked(bundle: ServedBundle, tmp_path: Path) -> None:
    online = tmp_path / "online.db"
    shutil.copyfile(bundle.root / "online.db", online)
    environment = {**bundle.environment, "CHURN_FEAST_ONLINE": str(online)}
    with under_fault(bundle, tmp_path, **environment) as served:
        assert served.one(1).status == 200
        with closing(sqlite3.connect(online, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            begun = time.monotonic()
            stranger = served.one(FRESH[-1])
            assert time.monotonic() - begun < REFUSED_WITHIN_S
            assert (stranger.status, stranger.body["code"]) == (503, telemetry.STORE_DOWN)
            assert stranger.retry_after is not None
            known = served.one(1)
            assert (known.status, known.body["status"]) == (200, "degraded")
            other.execute("ROLLBACK")
        served.wait_for(200, 5, FRESH[-1])
        within(30, lambda: served.one(1).body["status"] == "ok")


def test_a_full_disk_under_the_prediction_log(bundle: ServedBundle, tmp_path: Path) -> None:
    """The files of the worker cannot grow. For a writer, that is the same as a full disk."""
    with under_fault(bundle, tmp_path) as served:
        with Clients(served.url) as clients:
            within(30, lambda: len(clients.answers) > 200)
            worker = served.worker()
            worker.rlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
            seen = len(clients.answers)
            within(30, lambda: len(clients.answers) > seen + 500)
            time.sleep(10)
            worker.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            seen = len(clients.answers)
            within(30, lambda: len(clients.answers) > seen + 200)
        assert clients.statuses() == {200}
        assert "the prediction log cannot be written" in served.output()
        dropped = served.counted("churn_log_records_total", outcome="dropped")
    assert len(set(acknowledged(clients.answers)) - set(logged(served.log))) == dropped == 0


@pytest.mark.parametrize(
    ("ahead", "status"),
    [(timedelta(0), "ok"), (timedelta(days=60), "stale"), (timedelta(days=-30), "stale")],
    ids=["right", "60 days ahead", "30 days behind"],
)
def test_a_clock_that_is_wrong(bundle: ServedBundle, tmp_path: Path, ahead: timedelta, status: str) -> None:
    offset = float(bundle.environment["CHURN_CLOCK_OFFSET_S"]) + ahead.total_seconds()
    with under_fault(bundle, tmp_path, CHURN_CLOCK_OFFSET_S=str(offset)) as served:
        answer = served.one(1)
        assert (answer.status, answer.body["status"]) == (200, status)
        assert ("status_reason" in answer.body) == (status != "ok")


def test_an_archive_that_must_not_be_served_changes_nothing(bundle: ServedBundle, tmp_path: Path) -> None:
    wrong_spec = changed_archive(bundle, tmp_path / "spec", spec_digest="0" * 64)
    cut = tmp_path / "cut" / "tiny.mar"
    cut.parent.mkdir()
    cut.write_bytes(bundle.archive.read_bytes()[:-5000])
    with under_fault(bundle, tmp_path) as served:
        with Clients(served.url) as clients:
            within(30, lambda: len(clients.answers) > 50)
            for archive in (wrong_spec, cut):
                with pytest.raises(ServingError):
                    served.supervisor.replace(archive)
            seen = len(clients.answers)
            within(30, lambda: len(clients.answers) > seen + 50)
        assert clients.statuses() == {200}


def test_an_archive_that_is_not_trusted_changes_nothing(bundle: ServedBundle, tmp_path: Path) -> None:
    """Without a signature, signed with an unknown key, and changed after it was signed."""
    ours, stranger = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    list_of_signers = tmp_path / "signers"
    list_of_signers.write_text(trust_line("us", ours.public_key()))
    next_archive = tmp_path / "tiny.mar"
    checked = [False]

    def newest() -> Path:
        if checked[0]:
            verify_archive(next_archive, read_signers(list_of_signers))
        return bundle.archive

    with under_fault(bundle, tmp_path, newest) as served:
        first, checked[0] = served.jvm, True
        for key, changed, complaint in (
            (None, False, "unsigned"),
            (stranger, False, "unknown key"),
            (ours, True, "was changed"),
        ):
            next_archive.write_bytes(bundle.archive.read_bytes())
            if key is not None:
                sign(next_archive, key)
            if changed:
                content = bytearray(next_archive.read_bytes())
                content[len(content) // 2] ^= 1
                next_archive.write_bytes(bytes(content))
            with pytest.raises(ArchiveError, match=complaint):
                served.supervisor.change()
            assert served.one(1).status == 200
        assert served.jvm == first


def test_a_cut_archive_is_refused_at_the_start(bundle: ServedBundle, tmp_path: Path) -> None:
    cut = tmp_path / "tiny.mar"
    cut.write_bytes(bundle.archive.read_bytes()[:-5000])
    with pytest.raises(ServingError, match="not a model archive"):
        TorchServe(ServingConfig(), cut, bundle.environment, files_of(tmp_path)).__enter__()


@contextmanager
def store_in_redis(bundle: ServedBundle, folder: Path) -> Iterator[tuple[RedisServer, Path, dict[str, str]]]:
    """The bundle's customers in a private Redis, and an archive and an environment that use it."""
    options = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
    with redis_server(folder / "redis", *options) as cache:
        model_dir = shutil.copytree(bundle.model_dir, folder / "redis-model")
        yaml = model_dir / "feature_store.yaml"
        online = '{type: redis, connection_string: "${CHURN_FEAST_ONLINE}"}'
        lines = [
            f"online_store: {online}" if line.startswith("online_store:") else line
            for line in yaml.read_text().splitlines()
        ]
        yaml.write_text("\n".join(lines) + "\n")
        environment = {**bundle.environment, "CHURN_FEAST_ONLINE": f"127.0.0.1:{cache.port}"}
        _fill(bundle, folder / "redis-repo", yaml.read_text(), environment)
        yield cache, make_archive(model_dir, folder / "redis-store" / "tiny.mar"), environment


def _fill(bundle: ServedBundle, repository: Path, config: str, environment: dict[str, str]) -> None:
    from features.lean_feast import FeatureStore

    for name in bundle.store_environment:
        config = config.replace(f"${{{name}}}", environment[name])
    repository.mkdir()
    (repository / "feature_store.yaml").write_text(config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = FeatureStore(repo_path=str(repository))
        store.write_to_online_store("user_features", df=bundle.customers)


def refusals_are_documented(clients: Clients) -> bool:
    """All answers are scores or 503 with Retry-After."""
    odd = [one for one in clients.answers if one.status != 200 and (one.status != 503 or not one.retry_after)]
    assert not odd, odd[:5]
    return True
