"""Why pods are not ready, in the words of Kubernetes: the container's reason with its last message, or no
node.

The status of a Deployment says only that its minimum is not available. What a person needs is in the pods,
and where there are none, in the events of what should have made them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rollout.targets.kserve.cluster import Cluster, Object

LONGEST_MESSAGE = 300
STARTING = ("ContainerCreating", "PodInitializing")
"""Reasons of waiting that are no failure."""


@dataclass(frozen=True)
class PodTrouble:
    """Of one pod that is not ready, the newest of several."""

    words: str
    """`POD: REASON: MESSAGE`."""
    needs_node: bool = False
    """The scheduler has found no node for it yet."""
    starting_since: datetime | None = None
    """When it got a node, if nothing of it has failed since."""


class Pods:
    """The pods of one namespace."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def trouble(self, owner: str, labels: dict[str, str]) -> PodTrouble | None:
        """Of the pods with these labels, made by the Deployment `owner`; None: all are ready, or nothing is
        known."""
        pods = self._cluster.pods(labels)
        if not pods:
            refused = latest_warning(self._cluster.warnings(), owner)
            return None if refused is None else PodTrouble(refused)
        return trouble(pods)


def trouble(pods: Sequence[Object]) -> PodTrouble | None:
    unready = [pod for pod in pods if not _is_ready(pod) and "deletionTimestamp" not in pod["metadata"]]
    if not unready:
        return None
    # one that has failed says more than one that is starting, and the newest is of the newest template
    found = [_trouble_of(pod) for pod in sorted(unready, key=_created, reverse=True)]
    return next((one for one in found if one.needs_node or one.starting_since is None), found[0])


def latest_warning(events: Sequence[Object], owner: str) -> str | None:
    """The newest warning about `owner` or what it made: a quota or an admission that refuses its pods."""
    about = [event for event in events if event["involvedObject"].get("name", "").startswith(owner)]
    if not about:
        return None
    newest = max(about, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return f"{newest['involvedObject']['name']}: {newest.get('reason')}: {_short(newest.get('message'))}"


def _trouble_of(pod: Object) -> PodTrouble:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    placed = _condition(pod, "PodScheduled")
    if placed.get("status") == "False":
        return PodTrouble(f"{name}: {placed.get('reason')}: {_short(placed.get('message'))}", needs_node=True)
    initial = [(f"Init:{c['name']}", c) for c in status.get("initContainerStatuses") or []]
    states = [*initial, *((c["name"], c) for c in status.get("containerStatuses") or [])]
    for where, container in states:
        if failure := _failure(container, where.startswith("Init:")):
            return PodTrouble(f"{name}: {where}: {failure}")
    if status.get("phase") == "Failed":  # evicted, for example
        return PodTrouble(f"{name}: {status.get('reason') or 'Failed'}: {_short(status.get('message'))}")
    since = placed.get("lastTransitionTime")
    return PodTrouble(
        f"{name}: it is starting",
        starting_since=datetime.fromisoformat(since) if since else None,
    )


def _failure(container: Object, initial: bool) -> str | None:
    """Of a container: why it does not run, or why it has ended before; None: it runs, or is starting."""
    state, last = container.get("state") or {}, (container.get("lastState") or {}).get("terminated")
    waiting, ended = state.get("waiting"), state.get("terminated")
    if ended and not (initial and ended.get("exitCode") == 0):
        last = ended
    if waiting and waiting.get("reason") not in STARTING:
        why = f"{last_words(last)}" if last else _short(waiting.get("message"))
        return f"{waiting.get('reason')}: {why}"
    return last_words(last) if last else None


def last_words(ended: Object) -> str:
    """Of a container that has ended: reason, exit code and what it wrote at its end."""
    reason, code = ended.get("reason") or "Error", ended.get("exitCode")
    message = _short(ended.get("message"))
    return f"{reason} (exit code {code})" + (f": {message}" if message else "")


def _short(text: object) -> str:
    """One line; the end of a long one, where logs have their reason."""
    words = " ".join(str(text or "").split())
    return words if len(words) <= LONGEST_MESSAGE else f"...{words[-LONGEST_MESSAGE:]}"


def _is_ready(pod: Object) -> bool:
    return _condition(pod, "Ready").get("status") == "True"


def _condition(pod: Object, kind: str) -> Object:
    conditions = (pod.get("status") or {}).get("conditions") or []
    found: Object = next((condition for condition in conditions if condition["type"] == kind), {})
    return found


def _created(pod: Object) -> str:
    return str(pod["metadata"].get("creationTimestamp") or "")
