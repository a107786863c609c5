"""Removes a feature service from the store: its values, its tables, and its definitions."""

import shutil
from contextlib import suppress
from typing import Any

from core.workspace import ServiceWorkspace, Workspace
from features.erase import place_of_view
from features.lean_feast import FeatureStore
from features.online_stores import online_store_of
from features.spec import FeaturesConfig
from features.store import connect, store_errors

# isort: split
from feast import FeatureView
from feast.errors import FeastObjectNotFoundException


def remove_service(spec: FeaturesConfig, files: Workspace, service: str) -> int:
    """Remove `service` and the views that no other service has; return the number of customers whose values
    were removed. `spec` gives the addresses, and is of another service.

    The values are removed first and the service last, so that an interrupted call can be repeated. Raises
    FeatureError for errors of the store.
    """
    store = connect(spec, files)
    removed = 0
    for view in _own_views(store, service):
        if isinstance(view, FeatureView):
            removed = max(removed, _remove_values(spec, files, store, view))
        store.delete_feature_view(view.name)
        for source in _sources(view):
            with suppress(FeastObjectNotFoundException):  # an earlier release had one name for all
                store.registry.delete_data_source(source, project=store.project)
    store.delete_feature_service(service)
    remove_snapshots(files, service)
    return removed


def remove_snapshots(files: Workspace, service: str) -> None:
    """Remove the features that were built for `service` while another one was configured."""
    shutil.rmtree(ServiceWorkspace(files.root, service).features.parent, ignore_errors=True)


def _own_views(store: FeatureStore, service: str) -> list[Any]:
    """The views of the service that no other service has; on-demand views first, which read the others."""
    names = {
        one.name: [projection.name for projection in one.feature_view_projections]
        for one in store.list_feature_services()
    }
    shared = {view for other, views in names.items() if other != service for view in views}
    wanted = [name for name in names[service] if name not in shared]
    found = [*store.list_on_demand_feature_views(), *store.list_feature_views()]
    return [view for view in found if view.name in wanted]


def _remove_values(spec: FeaturesConfig, files: Workspace, store: FeatureStore, view: FeatureView) -> int:
    online = online_store_of(spec)
    place = place_of_view(spec, files, view)
    with store_errors(spec):
        removed = online.remove_departed(place, store, ())
        online.drop(place)
    return removed


def _sources(view: Any) -> list[str]:
    """The push source and the file source of a view; none of an on-demand view."""
    found = (getattr(view, "stream_source", None), getattr(view, "batch_source", None))
    return [source.name for source in found if source is not None]
