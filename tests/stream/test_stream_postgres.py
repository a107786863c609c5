"""Two consumers at once on one state in PostgreSQL, for the same customers, as around a rebalance."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np

from stream.state import State
from support.servers.postgres import postgres
from support.servers.redis_servers import redis_server
from support.stream_workspace import END, differences, message, purchases, shop, vectors

AT = END + timedelta(days=8)


def test_two_consumers_that_share_customers_count_each_purchase_once(tmp_path: Path) -> None:
    rows = purchases(np.random.default_rng(1), 12, 200, END, END + timedelta(days=7), "s")
    messages = [message(row) for row in rows]
    with redis_server(tmp_path / "redis") as server, postgres() as address:
        made = shop(tmp_path / "shop", 10, server.online)
        uri = f"{address}studies"
        made.state(uri).close()
        states = [made.state(uri, loaded=False) for _ in range(2)]

        def consume(state: State, mine: list[bytes]) -> tuple[int, int]:
            work = made.work(state, lambda: AT)
            outcomes = [work.apply(mine[at : at + 20]) for at in range(0, len(mine), 20)]
            return sum(one.new for one in outcomes), sum(one.repeated for one in outcomes)

        with ThreadPoolExecutor(2) as pool:
            # each has half of its own, and both have the middle
            jobs = [
                pool.submit(consume, states[0], messages[:150]),
                pool.submit(consume, states[1], messages[50:]),
            ]
            counts = [job.result(120) for job in jobs]
        users = [user for page in states[0].customers(100) for user in page]
        held, _ = states[0].touch(users, 0, lambda held: held.rows.num_rows)
        found = vectors(made, users)
        for state in states:
            state.close()
    assert sum(new for new, _ in counts) == 200
    assert sum(repeated for _, repeated in counts) == 100
    assert held == len(made.history) + 200
    assert differences(made, rows, found, _folder(tmp_path)) == []


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "offline"
    folder.mkdir()
    return folder
