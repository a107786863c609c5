"""On a real cluster: `make test-cluster`, with KUBECONFIG. Without it all of this is skipped."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from support.cluster.addresses import Addresses, addresses
from support.cluster.inventory import Inventory, found, inventory
from support.cluster.service import Service


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
def stores(cluster: Inventory) -> Addresses:
    return addresses()


@pytest.fixture(scope="module", params=["standard", "knative"])
def service(
    request: pytest.FixtureRequest,
    cluster: Inventory,
    stores: Addresses,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    """With its secrets, and nothing else yet. It leaves nothing behind."""
    cluster.needs_standard() if request.param == "standard" else cluster.needs_knative()
    made = Service(tmp_path_factory.mktemp("shop"), stores, f"churn-test-{uuid4().hex[:6]}", request.param)
    try:
        made.make_secrets()
        yield made
    finally:
        made.remove()
        assert found("namespace", made.namespace) is None
