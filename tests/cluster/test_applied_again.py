"""The same overlay is applied by server-side apply before the first model and between, during and after three
rollouts, in two namespaces at once.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from support.cluster.addresses import Addresses
from support.cluster.inventory import Inventory
from support.cluster.own_overlay import Size
from support.cluster.service import Service, applied_again, service_in
from support.cluster.turns import Turns

ROLLOUTS = 3
PER_SECOND = 10
SIZES = {"standard": Size(cpu="100m"), "knative": Size(cpu="20m", least_pods=1)}
"""Two services and their canaries have room on a node of two cores, beside Knative's pods without a model."""


@pytest.mark.parametrize("mode", ["standard", "knative"])
def test_applied_in_two_namespaces_through_three_rollouts(
    cluster: Inventory,
    evidence: None,
    stores: Addresses,
    tmp_path_factory: pytest.TempPathFactory,
    mode: str,
) -> None:
    cluster.needs(mode)
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        shops = [tmp_path_factory.mktemp("shop") for _ in range(2)]
        services = [stack.enter_context(service_in(shop, stores, mode, SIZES[mode])) for shop in shops]
        for answered in pool.map(three_rollouts, services):
            print(f"{mode}: {answered}")


def three_rollouts(service: Service) -> str:
    assert service.apply() == 0
    turns = Turns(service)  # applies again, and the first model serves
    seen = []
    with service.controller():
        for _ in range(ROLLOUTS):
            before = service.served
            assert service.apply() == 0
            assert service.served == before
            again = applied_again(service)
            requests = turns.promote(PER_SECOND, during=again)
            assert requests.lost == []
            seen.append(requests.summary)
            after = service.served
            assert service.apply() == 0
            assert service.served == after
    return "; ".join(seen)
