"""How many pods the share of a canary needs."""

from dataclasses import dataclass
from math import ceil

from rollout.targets.kserve.cluster import Object
from rollout.targets.kserve.marks import MINIMUM, REPLICAS, mark, predictor

WITH_A_SPARE = 2
"""Pods of which one may be deleted. Where the only one of a canary is, the gateway answers 503 until its
route has changed."""
MOST_TIMES_STABLE = 1.5
"""Load of a canary's pod by that of a pod of stable, which retains pods for all traffic. With more load the
canary would look slower than it is."""


@dataclass(frozen=True)
class Size:
    """Pods that a share needs."""

    canary: int
    """Fixed: KServe gives a canary no autoscaler."""
    minimum: int
    """Minimum of the predictor. KServe subtracts the canary's ready pods from it, and refuses a canary with
    more."""


def size(service: Object, entry: Object, percent: int, stable_pods: int) -> Size:
    """The canary gets its share of the pods that all traffic needs, and so many that a pod of it has not much
    more load than one of stable.

    That is the number that ran when the canary was deployed, when stable had all traffic. An autoscaler that
    has not removed pods yet is no sign of load. One that has added pods is, for the share that stable still
    has. Stable retains pods for all traffic, so that it can take it back, as far as maxReplicas allows beside
    the canary's. A canary with a share has a spare pod where stable has one.
    """
    most, minimum = most_replicas(service), minimum_before(service, entry)
    at_start = int(mark(entry["predictor"], REPLICAS) or stable_replicas(service))
    total = pods_for_all(at_start, stable_pods, 100 - int(entry["trafficPercent"]), most)
    pods = pods_for(percent, total, least_pods(minimum, most))
    together = max(total + pods, minimum)
    return Size(pods, max(pods, together if most is None else min(together, most)))


def pods_for_all(at_start: int, stable_pods: int, stable_share: int, most: int | None) -> int:
    """The pods that all traffic needs. `at_start`: stable's pods when the canary was deployed; `stable_pods`:
    those that serve `stable_share` % now."""
    total = ceil(stable_pods * 100 / stable_share) if stable_pods > at_start and stable_share else at_start
    return total if most is None else min(total, most)


def pods_for(percent: int, total: int, least: int) -> int:
    """Of a canary with `percent` of the traffic, beside `total` pods of stable; at least `least` where that
    is any."""
    if percent == 100:
        return max(least, total)
    as_loaded = ceil(total * percent / (100 - percent) / MOST_TIMES_STABLE)
    return max(least if percent else 1, ceil(total * percent / 100), min(as_loaded, total))


def least_pods(minimum: int, most: int | None) -> int:
    """Of a canary with a share: one more than it needs, where stable's `minimum` has that too, and `most` has
    room for both."""
    room = most is None or minimum + WITH_A_SPARE <= most
    return WITH_A_SPARE if minimum >= WITH_A_SPARE and room else 1


def most_replicas(service: Object) -> int | None:
    return int(predictor(service).get("maxReplicas") or 0) or None


def stable_replicas(service: Object) -> int:
    return int(predictor(service).get("minReplicas") or 1)


def declared_minimum(service: Object) -> int:
    """minReplicas as the annotation of the InferenceService declares it; without one, as it is now."""
    return int(mark(service["metadata"], MINIMUM) or stable_replicas(service))


def minimum_before(service: Object, entry: Object) -> int:
    """The predictor's minReplicas before the canary was deployed, or what has been declared since. `entry`:
    also of a canary that has become the predictor."""
    before = int(mark(entry["predictor"], MINIMUM) or stable_replicas(service))
    return int(mark(service["metadata"], MINIMUM) or before)
