"""A process that controls a model's rollouts as they come: `churn serve`, or `churn rollout run`."""

import logging
from collections.abc import Callable
from threading import Event as Flag

from rollout.controller import Controller
from rollout.errors import LeaseHeld, RolloutError
from rollout.health import Health
from rollout.state import Rollout
from rollout.store import Store

Make = Callable[[Rollout], Controller]
"""A controller with the rollout's own plan."""

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
    """Control whatever rollout of `model` runs or is started, until `over` is set; while none does, compare
    what serves with what is recorded.

    While another process has it, or the database is out of reach, this one waits for its turn. A failure of
    the database is logged once, and again when it changes.
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
