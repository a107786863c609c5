"""A process that controls a model's rollouts as they come: `churn serve`, or `churn rollout run`."""

from collections.abc import Callable
from threading import Event as Flag

from rollout.controller import Controller
from rollout.errors import RolloutError
from rollout.state import Rollout
from rollout.store import Store

Make = Callable[[Rollout], Controller]
"""A controller with the rollout's own plan."""


def attend(store: Store, model: str, make: Make, over: Flag, idle_s: float = 1.0) -> None:
    """Control whatever rollout of `model` runs or is started, until `over` is set.

    While another process has it, or the database is out of reach, this one waits for its turn.
    """
    while not over.is_set():
        try:
            rollout = store.current(model)
            if rollout is not None:
                make(rollout).run(rollout.id, over.is_set)
        except RolloutError:
            pass  # the next look may have more luck; whoever asks for the status hears of it too
        over.wait(idle_s)
