"""Limits the cost of a batch, in rows to score: one for a customer, several hundred for an explained score.

Without a common budget, a batch of requests for reasons that are each within their own limits would make all
other requests wait for seconds.
"""

from collections.abc import Sequence

from handlers import telemetry
from handlers.protocol.messages import Refusal, Request
from handlers.settings import WorkerSettings

ROWS = WorkerSettings.batch_rows
"""The default. A thousand calls of the program: some tenths of a second for a network, 1.6 s with trees."""
BUSY = Refusal(429, "the server cannot score so many customers at once; try again later", telemetry.BUSY, 1)


def cost(request: Request, rows_explained: int) -> int:
    """Rows that the request needs; `rows_explained`: rows for each customer whose score is explained."""
    explained = request.wants.reasons or request.wants.explanation
    return len(request.user_ids) * (rows_explained if explained else 1)


def within(
    requests: Sequence[Request | Refusal], rows: int, rows_explained: int
) -> Sequence[Request | Refusal]:
    """The same requests, with BUSY in the place of those that exceed the budget of `rows`.

    The cheapest requests are accepted first, so that a single customer is always answered. A request without
    others in the batch is always accepted. If all fit, `requests` itself is returned.
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
