"""All stores in the order of their start: MLflow's server needs PostgreSQL and S3."""

from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType

from deploy.loopback import broker, environment, mlflow_server, object_store, postgresql, redis_server, shop
from deploy.loopback.place import Place, StoreError
from deploy.loopback.processes import Processes

ORDER: Sequence[ModuleType] = (postgresql, redis_server, object_store, broker, mlflow_server)
"""Each module has `NAME`, `prepare`, `is_ready`, `settle`, `READY_S` and `STOP_S`."""
NAMES = tuple(str(store.NAME) for store in ORDER)


def up(place: Place, names: Sequence[str], progress: Callable[[str], None]) -> None:
    """Start the stores that do not run, and make databases, buckets, topics and the shop's table.

    Safe to repeat. Raises StoreError with the store and its log when one does not start.
    """
    processes = Processes(place)
    for store in _chosen(names):
        if processes.running(store.NAME) is None:
            progress(f"starting {store.NAME}")
            is_ready = partial(store.is_ready, place)
            processes.start(store.NAME, store.prepare(place), is_ready, store.READY_S)
        store.settle(place)
    if postgresql.NAME in names:
        progress(f"the shop has {shop.fill(place):,} purchases")
    environment.write(place)


def down(place: Place, names: Sequence[str], progress: Callable[[str], None], force: bool = False) -> None:
    """Stop the stores that were started in this folder, the last one first; their data stay."""
    processes = Processes(place)
    for store in reversed(_chosen(names)):
        stopped = processes.stop(store.NAME, store.STOP_S, force)
        progress(f"{store.NAME} {'stopped' if stopped else 'was not running'}")


def states(place: Place) -> dict[str, str]:
    """Store -> whether it runs and answers."""
    processes = Processes(place)
    return {
        store.NAME: "stopped"
        if processes.running(store.NAME) is None
        else "ready"
        if store.is_ready(place)
        else "not ready"
        for store in ORDER
    }


def _chosen(names: Sequence[str]) -> list[ModuleType]:
    if unknown := [name for name in names if name not in NAMES]:
        raise StoreError(f"{unknown[0]}: no store; choose from {', '.join(NAMES)}")
    return [store for store in ORDER if store.NAME in names]
