"""The cheapest schedule for somebody who has the whole loss matrix, by an exact dynamic programme."""

import numpy as np
from numpy.typing import NDArray

from replay.costs import Costs, Schedule

Floats = NDArray[np.float64]


def best_schedule(total: Floats, costs: Costs) -> Schedule:
    """The schedule with the smallest `replay.costs.bill`; of equal ones, that with the fewest trainings.

    A schedule is a path through its trainings: a model that is trained at s, with the next one trained at n,
    scores the customers of the moments s + deploy_steps to n + deploy_steps - 1. So the cheapest way to go on
    after a training at s depends on s only, and is computed from the last moment back (Bellman, 1957), in
    O(T^2).
    """
    steps = len(total)
    loss = np.cumsum(np.nan_to_num(total), axis=1)
    onward = np.zeros(steps)
    trainings = np.zeros(steps, np.int64)
    following = np.full(steps, steps)
    for s in range(steps - 1, -1, -1):
        begin = 0 if s == 0 else min(s + costs.deploy_steps, steps)
        best = (costs.value * _between(loss[s], begin, steps), 0, steps)
        for n in range(s + 1, steps):
            served = costs.value * _between(loss[s], begin, min(n + costs.deploy_steps, steps))
            best = min(best, (served + costs.model + onward[n], int(trainings[n]) + 1, n))
        onward[s], trainings[s], following[s] = best
    schedule: list[int] = []
    s = 0
    while (s := int(following[s])) < steps:
        schedule.append(s)
    return tuple(schedule)


def _between(cumulated: Floats, begin: int, end: int) -> float:
    """The sum of the cells from `begin` to before `end`."""
    if end <= begin:
        return 0.0
    return float(cumulated[end - 1] - (cumulated[begin - 1] if begin else 0.0))
