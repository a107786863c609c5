"""Parts of a cluster that are away for a while, and come back however the block ends.

What runs as a pod is scaled down. Processes outside of the cluster are stopped by a signal to their group,
where CHURN_CLUSTER_PIDS names a folder with a file for each (`apiserver`, `contour`, `prometheus`), which
contains the group's number.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.cluster.addresses import Addresses
from support.cluster.inventory import done, found

MANAGER = ("deployment/kserve-controller-manager", "-n", "kserve")


@contextmanager
def hung(name: str) -> Iterator[None]:
    """A process that accepts connections and does not answer."""
    folder = os.environ.get("CHURN_CLUSTER_PIDS")
    if not folder or not (Path(folder) / name).is_file():
        pytest.skip(f"cluster: CHURN_CLUSTER_PIDS names no folder with the process group of {name}")
    group = int((Path(folder) / name).read_text())
    os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(group, signal.SIGCONT)


@contextmanager
def kserve_away() -> Iterator[None]:
    """Without its manager there is no webhook either: each change of an InferenceService is refused."""
    manager = found("deployment", "kserve-controller-manager", "-n", "kserve")
    before = manager["spec"]["replicas"]
    done("scale", *MANAGER, "--replicas=0")
    try:
        yield
    finally:
        done("scale", *MANAGER, f"--replicas={before}")
        done("rollout", "status", *MANAGER, "--timeout=180s")


@contextmanager
def no_room() -> Iterator[None]:
    """New pods find no node, as while a node of an autoscaler starts."""
    nodes = [one["metadata"]["name"] for one in found("nodes")["items"]]
    ready = [name for name in nodes if not found("node", name)["spec"].get("unschedulable")]
    for name in ready:
        done("cordon", name)
    try:
        yield
    finally:
        for name in ready:
            done("uncordon", name)


@contextmanager
def database_away(to: Addresses, name: str) -> Iterator[None]:
    """Its connections end, and it accepts none."""
    to.administer(
        f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
    )
    try:
        yield
    finally:
        to.administer(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
