"""What happens in turns while the load goes on: a retraining, its rollout, a crash of a store, a rotation."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from deploy.loopback.stores import NAMES
from serving.gateway.keys import OWN
from support.servers.loopback import Loopback

REST_S = 20.0
"""Between two events."""
AWAY_S = 5.0
"""So long a store is away."""


@dataclass(frozen=True)
class Event:
    """From when to when, in Unix seconds, and how it ended."""

    what: str
    begun: float
    ended: float
    outcome: str


def happen(stores: Loopback, until: float, progress: Callable[[str], None]) -> list[Event]:
    """Events one after the other until the time `until`, in Unix seconds."""
    found: list[Event] = []
    for what, act in turns(stores):
        if time.time() + REST_S >= until:
            return found
        time.sleep(REST_S)
        begun = time.time()
        outcome = act()
        found.append(Event(what, begun, time.time(), outcome))
        progress(f"{what}: {outcome} ({time.time() - begun:.0f} s)")
    return found


def turns(stores: Loopback) -> Iterator[tuple[str, Callable[[], str]]]:
    for number in count(1):
        yield "retraining", lambda number=number: retrain(stores, number)  # type: ignore[misc]
        yield "rollout", lambda: roll_out(stores)
        for name in NAMES:
            yield f"{name} killed", lambda name=name: restart(stores, name)  # type: ignore[misc]
        yield "key rotated", lambda: ended(stores, "keys", "rotate", OWN)


def retrain(stores: Loopback, number: int) -> str:
    """With another seed, so that the candidate is another one."""
    return ended(stores, "run", "--no-rollout", overrides=(f"model.seeds=[{number}]",))


def roll_out(stores: Loopback) -> str:
    begun = ended(stores, "rollout", "start", "--reason", "soak")
    if begun != "ok" or ended(stores, "rollout", "watch") == "ok":
        return begun
    status = json.loads(stores.churn("rollout", "status", "--json").stdout)
    return f"exit code 3: {status['outcome']}"


def restart(stores: Loopback, name: str) -> str:
    stores.kill(name)
    time.sleep(AWAY_S)
    stores.up(name)
    return "back"


def ended(stores: Loopback, *command: str, overrides: tuple[str, ...] = ()) -> str:
    done = stores.churn(*command, overrides=overrides)
    if done.returncode == 0:
        return "ok"
    lines = (done.stderr or done.stdout).strip().splitlines()
    return f"exit code {done.returncode}: {lines[-1][:160] if lines else ''}"
