"""What probes and Prometheus learn of a controller."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from rollout.config import Notify
from rollout.database.projections import Projection
from rollout.health import Health, Standing, answering
from rollout.notify import notifier
from rollout.state import Change
from support.file_target import NEW, OLD, memory_folder, now, plan, store_in


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with memory_folder(tmp_path) as made:
        yield made


def test_probes_and_metrics_follow_the_loop_the_database_and_the_rollout(folder: Path) -> None:
    store, health, notices = store_in(folder, plan()), Health(), notifier(Notify())
    with answering("127.0.0.1:0", Standing(store, "churn", health, notices), 60) as url:
        assert httpx.get(f"{url}/livez").status_code == httpx.get(f"{url}/readyz").status_code == 200
        assert httpx.get(f"{url}/secrets").status_code == 404
        page = httpx.get(f"{url}/metrics").text
        assert "churn_rollout_running 0.0" in page and "churn_rollout_database_reachable 1.0" in page

        store.start("churn", Change(NEW, OLD, "ada", now(), "march"), plan())
        store.save_projection("churn", Projection("target", False, "serves x", datetime.now(UTC)))
        notices.dropped = 3
        page = httpx.get(f"{url}/metrics").text
        assert 'churn_rollout_phase{phase="starting"} 1.0' in page and "churn_rollout_running 1.0" in page
        assert 'churn_rollout_agrees{projection="target"} 0.0' in page
        assert 'churn_rollout_notices_lost_total{reason="dropped"} 3.0' in page

        health.trouble = "rollouts at sqlite: gone"
        health._beat -= 61  # as if the loop had stopped
        assert "gone" in httpx.get(f"{url}/readyz").text
        assert httpx.get(f"{url}/livez").status_code == 503
        health.beat()
        assert httpx.get(f"{url}/livez").status_code == 200

        (folder / "rollout.db").rename(folder / "away.db")
        (folder / "rollout.db").mkdir()
        assert "churn_rollout_database_reachable 0.0" in httpx.get(f"{url}/metrics").text
    notices.close()
