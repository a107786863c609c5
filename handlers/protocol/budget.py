"""What a batch may cost, in rows that are scored: a customer is one, an explained one several hundred.

Requests share a worker and their batch. Without a common budget a batch of requests for reasons, each within
its own limits, would keep everybody else waiting for seconds.
"""

from collections.abc import Sequence

from handlers import telemetry
from handlers.protocol.messages import Refusal, Request

ROWS = 65_536
"""By default. A thousand calls of the program: some tenths of a second for a network, 1.6 s with trees."""
BUSY = Refusal(429, "more is asked for at once than this server does; ask again", telemetry.BUSY, 1)


def cost(request: Request, rows_explained: int) -> int:
    """Rows to be scored; `rows_explained` for a customer whose score is explained."""
    explained = request.wants.reasons or request.wants.explanation
    return len(request.user_ids) * (rows_explained if explained else 1)


def within(
    requests: Sequence[Request | Refusal], rows: int, rows_explained: int
) -> Sequence[Request | Refusal]:
    """The same, with BUSY in place of what does not fit into `rows`.

    The cheapest go first, so that a lone customer is always answered; and so is a request that is alone.
    """
    costs = [0 if isinstance(request, Refusal) else cost(request, rows_explained) for request in requests]
    if sum(costs) <= rows:
        return requests
    fitting, left = set[int](), rows
    for at in sorted(range(len(requests)), key=costs.__getitem__):
        if costs[at] <= left or not any(costs[other] for other in fitting):
            fitting.add(at)
            left -= costs[at]
    return [request if at in fitting else BUSY for at, request in enumerate(requests)]
