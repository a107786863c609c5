"""Removes customers from the online store: from every view of the workspace, whichever service has it."""

from collections.abc import Sequence
from typing import Any

from core.workspace import Workspace
from features.lean_feast import FeatureStore
from features.online_stores import Place, online_store_of
from features.parity import READ_ROWS
from features.spec import FeaturesConfig
from features.store import connect, place_of, store_errors


def erase(spec: FeaturesConfig, files: Workspace, users: Sequence[str]) -> None:
    """Remove `users` (masked ids). `spec` gives the addresses. Raises FeatureError for a store that fails."""
    store = connect(spec, files)
    with store_errors(spec):
        for view in _views(store):
            online_store_of(spec).erase(place_of_view(spec, files, view), store, users)


def count_online(spec: FeaturesConfig, files: Workspace, users: Sequence[str]) -> int:
    """The number of vectors of `users` (masked ids) in all views, as Feast reads them."""
    store = connect(spec, files)
    count = 0
    with store_errors(spec):
        for view in _views(store):
            names = [f"{view.name}:{field.name}" for field in view.features]
            for start in range(0, len(users), READ_ROWS):
                rows = [{"user_id": user} for user in users[start : start + READ_ROWS]]
                found = store.get_online_features(names, rows).to_dict()
                found.pop("user_id")
                count += sum(
                    any(value is not None for value in row) for row in zip(*found.values(), strict=True)
                )
    return count


def place_of_view(spec: FeaturesConfig, files: Workspace, view: Any) -> Place:
    """The place of a registered view in the online store."""
    return place_of(spec, files, view.name, [(field.name, str(field.dtype)) for field in view.features])


def _views(store: FeatureStore) -> list[Any]:
    try:
        return list(store.list_feature_views())
    except FileNotFoundError:  # nothing is registered yet
        return []
