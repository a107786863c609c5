"""Compares the vectors that a server reads from the online store with the offline, point-in-time ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from core.workspace import Workspace
from features.build import read_feature_manifest
from features.history import point_in_time
from features.lean_feast import FeatureStore
from features.newest import newest
from features.spec import FeaturesConfig
from features.store import open_store

READ_ROWS = 250
"""Customers per online read. In SQLite they are the parameters of one statement."""


@dataclass(frozen=True)
class ParityReport:
    """The result of an exact comparison: numbers bit by bit, and null is equal only to null."""

    customers: int
    mismatches: dict[str, int]
    """Feature -> number of customers for whom it differs; only features with a difference."""
    examples: tuple[str, ...]
    """Differences as text, one per feature that differs."""

    @property
    def agree(self) -> bool:
        return self.customers > 0 and not self.mismatches


def check(spec: FeaturesConfig, files: Workspace, n: int = 1000, seed: int = 0) -> ParityReport:
    """Compare `n` customers, or all if there are fewer, sampled from the newest snapshots with `seed`.

    Raises FeatureError when the store is not usable.
    """
    store = open_store(spec, files)
    entities = _draw(spec, files, n, seed)
    offline = point_in_time(spec, store, entities)
    online = read_online(spec, store, entities["user_id"].to_pylist())
    mismatches: dict[str, int] = {}
    examples: list[str] = []
    for name in (*spec.numeric, *spec.categorical):
        then, now = offline[name].to_pylist(), online[name]
        if different := [row for row in range(len(then)) if _bits(then[row]) != _bits(now[row])]:
            mismatches[name] = len(different)
            examples.append(f"{name}: offline {then[different[0]]!r}, online {now[different[0]]!r}")
    return ParityReport(entities.num_rows, mismatches, tuple(examples))


def read_online(spec: FeaturesConfig, store: FeatureStore, user_ids: Sequence[str]) -> dict[str, list[Any]]:
    """The service's values for masked ids: a list per feature, in the order of the ids; None for no value."""
    service = store.get_feature_service(spec.service)
    answer: dict[str, list[Any]] = {name: [] for name in (*spec.numeric, *spec.categorical)}
    for start in range(0, len(user_ids), READ_ROWS):
        rows = [{"user_id": user_id} for user_id in user_ids[start : start + READ_ROWS]]
        part = store.get_online_features(features=service, entity_rows=rows).to_dict()
        for name, values in answer.items():
            values.extend(part[name])
    return answer


def _draw(spec: FeaturesConfig, files: Workspace, n: int, seed: int) -> pa.Table:
    batches = newest(spec, files, read_feature_manifest(files), columns=["user_id", "event_timestamp"])
    known = pa.Table.from_batches(list(batches))
    drawn = np.random.default_rng(seed).permutation(known.num_rows)[:n]
    return known.take(pa.array(np.sort(drawn)))


def _bits(value: object) -> object:
    """A form that is equal for values that are identical inputs of the network; NaN is null."""
    if value is None or value != value:
        return None
    return value.hex() if isinstance(value, float) else value
