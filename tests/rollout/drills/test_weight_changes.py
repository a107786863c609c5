"""100,000 requests while weights change 100 times, between two real TorchServes: none is dropped."""

import time
from pathlib import Path

import pytest

from support.served_bundle import FRESH, ServedBundle

from support.drills.rig import VERSION, altered, running_rig  # isort: skip
from support.servers.load import under_load  # isort: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
REQUESTS, CHANGES = 100_000, 100
WEIGHTS = (1, 5, 25, 50, 100, 50, 0, 75, 10, 90)


def test_no_request_is_dropped_by_changes_of_weight(bundle: ServedBundle, tmp_path: Path) -> None:
    candidate = altered(bundle, tmp_path)
    with running_rig(bundle, tmp_path) as made:
        made.target.deploy(candidate)
        while not made.target.observe().ready:
            time.sleep(0.5)
        began = time.monotonic()
        with under_load(made.url, users=list(FRESH), connections=48, reconnecting=False) as load:
            for change in range(CHANGES):
                while load.answered < change * REQUESTS / CHANGES:
                    time.sleep(0.01)
                made.target.set_weight(WEIGHTS[change % len(WEIGHTS)])
            while load.answered < REQUESTS:
                time.sleep(0.01)
            # and what takes the canary away, under the same load
            made.target.rollback()
        took = time.monotonic() - began
    print(f"{load.answered} answered in {took:.1f} s, {dict(load.versions)}, cut {len(load.cut)}")
    assert load.cut == []
    assert load.refused == 0
    assert set(load.status) == {200}, load.status
    assert load.answered >= REQUESTS
    assert min(load.versions[VERSION], load.versions["0123456789ab"]) > REQUESTS // 10
