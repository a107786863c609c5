"""The outer loop of `churn serve` and `churn rollout run`: controls each rollout of a model that is
started."""

import logging
from collections.abc import Callable
from threading import Event as Flag

from rollout.controller import Controller
from rollout.errors import LeaseHeld, RolloutError
from rollout.health import Health
from rollout.state import Rollout
from rollout.store import Store

Make = Callable[[Rollout], Controller]
"""Makes a controller with the plan of the rollout."""

log = logging.getLogger("churn.rollout")


def attend(
    store: Store,
    model: str,
    make: Make,
    over: Flag,
    idle_s: float = 1.0,
    reconcile: Callable[[], None] = lambda: None,
    health: Health | None = None,
) -> None:
    """Control each rollout of `model` that runs or is started, until `over` is set. While none runs, call
    `reconcile`.

    While another process has the lease, or the database cannot be reached, it waits for `idle_s` seconds
    between attempts. A failure of the database is logged once, and again when it changes.
    """
    health = health or Health()
    failure = ""

    def stop() -> bool:
        health.beat()
        return over.is_set()

    while not stop():
        try:
            rollout = store.current(model)
            if rollout is not None:
                make(rollout).run(rollout.id, stop)
            else:
                reconcile()
            failure = ""
        except LeaseHeld:
            failure = ""
        except RolloutError as error:
            if str(error) != failure:
                log.warning("%s", error)
            failure = str(error)
        health.trouble = failure
        over.wait(idle_s)
