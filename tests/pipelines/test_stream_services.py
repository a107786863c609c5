"""The stream while a model of the features before serves: each purchase reaches both services."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_deploy import HELD, PROGRAM, pack, report_of

from churn.settings import load_settings
from features.parity import read_online
from features.spec import FeaturesConfig
from features.store import open_store
from pipelines.candidates import candidate_at
from pipelines.context import Context
from pipelines.forget import forget
from pipelines.rollout import open_store as open_rollouts
from pipelines.steps.data import compute_features, fill_online_store
from pipelines.streaming import load, streaming, work_of
from rollout.state import Change
from support.servers.redis_servers import redis_server
from support.stream_workspace import END, Shop, differences, message, purchases, shop, vectors

NOW = END + timedelta(days=3)
WINDOW = {
    "name": "spend_30d",
    "dtype": "float64",
    "default": 0.0,
    "sql": "sum(amount) filter (age_days <= 7)",
}
LAST = {"name": "largest_90d", "dtype": "float64", "sql": "max(amount) filter (age_days <= 90)"}


def second_spec(first: FeaturesConfig) -> dict[str, object]:
    """A feature added, one removed, and one with another window."""
    content = first.model_dump(mode="json", exclude={"view", "derived_view"})
    features = [one for one in content["features"] if one["name"] not in ("orders_14d", "spend_30d")]
    return content | {"service": "churn_prediction_v2", "features": [*features, WINDOW, LAST]}


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_both_services_equal_their_batch_builds_after_purchases(tmp_path: Path, kind: str) -> None:
    if kind == "sqlite":
        check(shop(tmp_path, customers=12), tmp_path, kind)
    else:
        with redis_server(tmp_path) as server:
            check(shop(tmp_path, customers=12, online=server.online), tmp_path, kind)


def check(first: Shop, folder: Path, kind: str) -> None:
    second = replace(first, spec=FeaturesConfig.model_validate(second_spec(first.spec)))
    content = {
        "workspace": str(first.files.root),
        "data": first.data.model_dump(mode="json"),
        "features": second.spec.model_dump(mode="json"),
        "stream": {"brokers": "127.0.0.1:1"},
    }
    overlay = folder / "overlay.yaml"
    overlay.write_text(yaml.safe_dump(content, sort_keys=False))
    settings = load_settings(overlays=[overlay])
    store, model = open_rollouts(settings), settings.serving.model_name
    gates = {"passed": True, "digest": report_of(PROGRAM, HELD).digest, "overrides": []}
    stable = candidate_at(pack(settings, gates, spec=first.spec.contract(), online=kind))
    store.served_at_once(model, Change(stable, None, "ada", datetime(2026, 1, 1, tzinfo=UTC), "a test"))
    context = Context(settings, NOW, lambda _: None, clock=lambda: NOW + timedelta(hours=1))

    compute_features(context)
    fill_online_store(context)
    rows = purchases(np.random.default_rng(1), 14, 60, END, NOW - timedelta(hours=1), "s")
    with streaming(settings) as parts:
        load(settings, parts)
        outcome = work_of(settings, parts, lambda: NOW).apply([message(row) for row in rows])
    assert (outcome.new, outcome.refused) == (len(rows), {})
    users = sorted({one.user_id for one in read_all(first, rows)})
    for number, made in enumerate((first, second)):
        found = vectors(made, users)
        assert found.num_rows == len(users)
        assert differences(made, rows, found, folder / f"offline-{number}") == []

    # a later materialize leaves what the stream has put online, for both; an erasure reaches both
    fill_online_store(context)
    for made in (first, second):
        assert min(vectors(made, users)["event_timestamp"].to_pylist()) > NOW - timedelta(hours=1)
    gone = read_all(first, rows[:1])[0].user_id
    assert forget(context, [rows[0][0]], "asked for it").remaining == 0
    for made in (first, second):
        found = read_online(made.spec, open_store(made.spec, made.files), [gone])
        assert set(map(tuple, found.values())) == {(None,)}


def read_all(made: Shop, rows: list) -> list:
    return list(made.reader().read([message(row) for row in rows], 10**16, 0).purchases.values())
