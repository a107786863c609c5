"""On a real cluster: `make test-cluster`, with KUBECONFIG. Without it all of this is skipped."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster.addresses import Addresses, addresses
from support.cluster.inventory import Inventory, found, inventory
from support.cluster.service import Service, service_in


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def cluster() -> Inventory:
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("cluster: KUBECONFIG is not set")
    if shutil.which("kubectl") is None:
        pytest.skip("cluster: kubectl is not installed")
    return inventory()


@pytest.fixture(scope="session")
def stores(cluster: Inventory) -> Iterator[Addresses]:
    with addresses() as found_ones:
        yield found_ones


@pytest.fixture(scope="session")
def evidence(stores: Addresses) -> None:
    """Skips where there is no Prometheus."""
    stores.needs_prometheus()


@pytest.fixture(scope="module", params=["standard", "knative"])
def service(
    request: pytest.FixtureRequest,
    cluster: Inventory,
    stores: Addresses,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    """One for all tests of a file."""
    cluster.needs(request.param)
    with service_in(tmp_path_factory.mktemp("shop"), stores, request.param) as made:
        yield made
    assert found("namespace", made.namespace) is None
