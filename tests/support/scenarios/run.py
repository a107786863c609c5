"""Runs a scenario in a place, that is on a model of KServe or on a real cluster, and compares each state."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from rollout.targets.kserve.cluster import Cluster, ClusterError
from rollout.targets.kserve.knative import Knative
from rollout.targets.kserve.standard import Standard
from rollout.targets.target import NotYet
from support.scenarios.file import Scenario, State, Step
from support.scenarios.state import Names, state_of

ATTEMPTS = 100
"""Of an action that says NotYet, as a controller repeats it at each tick."""


class Place(Protocol):
    """One InferenceService in a namespace of its own."""

    cluster: Cluster
    target: Standard | Knative
    names: Names

    def apply(self) -> None:
        """The overlay, by server-side apply, as another manager than rollouts."""

    def lose(self, model: str) -> None:
        """One of its pods is not ready until `regain`."""

    def regain(self, model: str) -> None: ...

    def splits(self) -> list[dict[str, int]]:
        """Each split of the traffic that the public host has had since the last call, in order."""

    def settle(self, same: Callable[[], bool]) -> None:
        """Wait until `same` is true, and then as long as something could still change; not for ever."""


class Differs(AssertionError):
    """A state is another one than the file says."""


def run(scenario: Scenario, place: Place) -> None:
    state: State = {}
    for step in scenario.steps:
        state = _run(scenario, step, place, state)


def _run(scenario: Scenario, step: Step, place: Place, before: State) -> State:
    if step.fails:
        with suppress(ClusterError):
            _do(step.words, place, attempts=1)
            raise Differs(f"{scenario.id}, step {step.number}, {step.words}: it has not failed")
    else:
        _do(step.words, place)
    looks: list[Any] = [before.get("seen")]
    splits = [before.get("traffic", {})]
    found: State = {}

    def same() -> bool:
        if step.words == "tidy":  # as a controller repeats it at each tick: KServe takes a moment
            place.target.tidy()
        found.clear()
        found.update(without_empty(state_of(place.cluster, place.target, place.names)))
        _collapse(looks, found["seen"])
        return found == without_empty(step.settled)

    place.settle(same)
    for split in place.splits():
        _collapse(splits, split)
    if not same():
        raise Differs(_told(scenario, step, without_empty(step.settled), found))
    passed = {"seen": looks[1:], "traffic": splits[1:]}
    for key, expected in step.passed.items():
        if passed[key] != expected:
            raise Differs(_told(scenario, step, {key: expected}, {key: passed[key]}))
    return {**found}


def _do(words: str, place: Place, attempts: int = ATTEMPTS) -> None:
    verb, _, rest = words.partition(" ")
    target = place.target
    if verb == "apply":
        place.apply()
    elif verb == "weigh":
        _repeated(lambda: target.set_weight(int(rest)), attempts)
    elif verb in ("lose", "regain"):
        getattr(place, verb)(rest)
    elif verb in ("rollback", "tidy"):
        getattr(target, verb)()
    else:
        candidate = place.names.candidates[rest]
        _repeated(lambda: getattr(target, verb)(candidate), attempts)


def _repeated(action: Callable[[], None], attempts: int) -> None:
    for _ in range(attempts):
        try:
            action()
        except NotYet as not_yet:
            why = not_yet
        else:
            return
    raise why


def _collapse(values: list[Any], value: Any) -> None:
    if not values or values[-1] != value:
        values.append(value)


def without_empty(state: State) -> State:
    return {key: value for key, value in state.items() if value not in ({}, [], None)}


def _told(scenario: Scenario, step: Step, expected: State, found: State) -> str:
    lines = [f"{scenario.id}, step {step.number}, {step.words}:"]
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            lines += [f"  {key}", f"    expected {expected.get(key)}", f"    found    {found.get(key)}"]
    return "\n".join(lines)
