"""No feature reads rows after its as_of: with any future rows, the snapshot's bytes are the same."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from features.build import build_features
from support.feature_records import write_transactions

AS_OF = [datetime(1997, 8, 1, tzinfo=UTC), datetime(1997, 12, 1, tzinfo=UTC)]
END = datetime(1998, 7, 1, tzinfo=UTC)


def snapshots(root, log, spec):
    files = write_transactions(root, log, start=datetime(1997, 1, 1, tzinfo=UTC), end=END)
    build_features(spec, files, as_of=AS_OF, labels=False)
    return files.snapshots.read_bytes()


@pytest.fixture(scope="module")
def expected(tmp_path_factory, cdnow_log, make_spec):
    """Snapshots of the log as it is."""
    return snapshots(tmp_path_factory.mktemp("real"), cdnow_log, make_spec())


@pytest.mark.parametrize("seed", range(3))
def test_a_random_future_changes_nothing(tmp_path, cdnow_log, make_spec, expected, seed):
    rng = np.random.default_rng(seed)
    future = cdnow_log["timestamp"] >= AS_OF[-1]
    past, after = cdnow_log[~future], cdnow_log[future].copy()
    after["amount"] *= rng.uniform(0, 1000, len(after))
    after["quantity"] = rng.integers(1, 10**6, len(after)).astype(float)
    after["timestamp"] += pd.to_timedelta(rng.integers(0, 10**9, len(after)), unit="us")
    newcomers = after.sample(500, random_state=seed)
    newcomers = newcomers.assign(user_id=[f"u_{rng.bytes(16).hex()}" for _ in range(len(newcomers))])
    at_the_moment = past.sample(500, random_state=seed).assign(timestamp=AS_OF[-1])
    log = pd.concat([past, after.sample(frac=rng.uniform(0, 1), random_state=seed), newcomers, at_the_moment])
    assert snapshots(tmp_path / "changed", log, make_spec()) == expected


def test_the_last_moment_before_as_of_is_read(tmp_path, cdnow_log, make_spec, expected):
    """The test above would also pass if nothing were read at all."""
    just_before = cdnow_log.head(1).assign(timestamp=AS_OF[-1] - timedelta(microseconds=1))
    assert snapshots(tmp_path / "changed", pd.concat([cdnow_log, just_before]), make_spec()) != expected
