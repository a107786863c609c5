"""Under load from 64 clients, no stop, restart or change of version cuts a request."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from serving.addresses import free_port
from serving.config import GatewayConfig
from support.served_bundle import ServedBundle, changed_archive
from support.servers.load import under_load
from support.servers.stack import supervisor_of, ticking
from support.waits import within

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
VERSIONS = ("0123456789ab", "ba9876543210")


def test_no_request_is_cut_by_changes_and_restarts(bundle: ServedBundle, tmp_path: Path) -> None:
    """7 changes of version and 7 restarts of TorchServe behind the gateway, without a pause in answers."""
    archives = (bundle.archive, changed_archive(bundle, tmp_path, model_version=VERSIONS[1]))
    made = supervisor_of(bundle, tmp_path)
    with made.supervisor, under_load(made.url, made.key) as load:
        for number in range(1, 15):
            supervisor = made.supervisor
            # odd: the other version; even: the same version again
            supervisor.replace(archives[(number + 1) // 2 % 2])
            supervisor.tick(datetime.now(UTC))
    assert load.cut == []
    assert load.refused == 0
    assert set(load.status) == {200}, load.status
    assert set(load.versions) == set(VERSIONS)
    assert len(load.scores) == 1
    assert load.answered > 1000


def test_no_request_is_cut_by_stops(bundle: ServedBundle, tmp_path: Path) -> None:
    """6 stops of gateway and server. Each answers all requests; between them, no process listens."""
    config = GatewayConfig(port=free_port(0, "port"))
    stopped = 0
    made = supervisor_of(bundle, tmp_path, config)
    with under_load(f"http://127.0.0.1:{config.port}", made.key) as load:
        for _ in range(6):
            made = supervisor_of(bundle, tmp_path, config)
            with made.supervisor, ticking(made.supervisor):
                before = load.answered
                within(60, lambda before=before: load.answered > before + 300)
            stopped += 1
    assert stopped == 6
    assert load.cut == []
    # while TorchServe loads, the gateway answers 503 with Retry-After
    assert set(load.status) <= {200, 503}, load.status
    assert load.without_retry_after == 0
    assert len(load.scores) == 1
